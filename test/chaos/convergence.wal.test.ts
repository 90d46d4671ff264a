import { testFeed } from "../support/tested-feed.ts";

testFeed("wal");
await import("./convergence.test.ts");
