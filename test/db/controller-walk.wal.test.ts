import { testFeed } from "../support/tested-feed.ts";

testFeed("wal");
await import("./controller-walk.test.ts");
