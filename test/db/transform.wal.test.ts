import { testFeed } from "../support/tested-feed.ts";

testFeed("wal");
await import("./transform.test.ts");
