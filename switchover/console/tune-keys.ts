import type { RequestArgs } from "../requests.ts";

/** The throttles that `tune` changes, with what their values mean. */
const MEANINGS: Readonly<Record<RequestArgs<"tune">["key"], string>> = {
  workers: "how many chunks are copied at once",
  chunk: "rows per chunk",
  p99: "largest factor over the app's usual p99 latency",
  active: "most active sessions on the source",
  replica_lag: "largest lag of a replica, ms",
  wal: "most WAL kept back, bytes",
};

export const REQUEST_KEYS = Object.entries(MEANINGS).map(([key, meaning]) => ({ key, meaning }));
