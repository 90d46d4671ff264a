import { NO_SHADOW } from "../../store/control/shadow-report.ts";
import type { Status } from "../../switchover/status.ts";

/** A migration in the middle of its copy, and nothing wrong but writes past the sidecar. */
export const STATUS: Status = {
  plan: "shop",
  phase: "backfill",
  phase_since: "2026-11-20T12:00:00.000Z",
  authority: "old",
  epoch: 1,
  reads: { new: 0.25 },
  canary_step: 0,
  mirror: {
    direction: "forward",
    lag_ms: 3.2,
    keys: 12_345,
    passes: 678,
    deferred: 2,
    state: "running",
    why: null,
  },
  backfill: {
    state: "running",
    throttle: null,
    rows_per_s: 80_000,
    tables: [
      { table: "users", chunks: 4, done: 4, failed: 0, rows: 20_000, eta_s: 0 },
      { table: "orders", chunks: 10, done: 5, failed: 0, rows: 25_000, eta_s: 125 },
      { table: "notes", chunks: 1, done: 0, failed: 0, rows: 0, eta_s: null },
    ],
    deferred: [],
  },
  verify: {
    state: "none",
    why: null,
    clean_at: null,
    missing: 0,
    extra: 0,
    different: 0,
    round_trip: null,
  },
  shadow: NO_SHADOW,
  gates: [
    { name: "lag", state: "pass", value: "3 ms", limit: "1000 ms", why: "the mirror keeps up" },
    {
      name: "backfill",
      state: "fail",
      value: "9 of 15 chunks",
      limit: "all chunks",
      why: "rows are still being copied",
    },
  ],
  next: "verify; held back by backfill for now: `crossfade advance --wait` waits",
  quarantine: 0,
  went_back: null,
  flip: null,
  sidecars: [
    { id: "host:127.0.0.1:8080", epoch: 1, seen_ms: 120, holding: false, new_app_down: false },
  ],
  controller: { leading: true, doing: null },
  paused: { backfill: false, mirror: false },
  maintenance: null,
  gap: null,
  databases: {
    old: { reachable: true, version: "18.1", state: null, refused_writes: 0 },
    new: { reachable: true, version: "18.1", state: null, refused_writes: 3 },
  },
  problems: [],
};
