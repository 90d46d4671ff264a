import { testFeed } from "../support/tested-feed.ts";

testFeed("wal");
await import("./sync.test.ts");
