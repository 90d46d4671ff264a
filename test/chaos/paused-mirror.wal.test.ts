import { testFeed } from "../support/tested-feed.ts";

testFeed("wal");
await import("./paused-mirror.test.ts");
