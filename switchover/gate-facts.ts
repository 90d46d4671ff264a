import type { PolicyPlan } from "../config/policy.ts";
import type { ServerLimits } from "../config/server-limits.ts";
import { directionFrom } from "../config/words.ts";
import type { Direction, Phase } from "../config/words.ts";
import type { TableProgress } from "../store/control/chunk-ledger.ts";
import type { DeferredRow } from "../store/control/deferred-objects.ts";
import type { Receipt } from "../store/control/history.ts";
import type { Migration } from "../store/control/migration.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";
import type { VerifyRun } from "../store/control/verify-runs.ts";
import type { WorkerSeen } from "../store/control/workers.ts";
import type { CompareLimits } from "./compare-sides.ts";
import type { CopyEstimate } from "./room-gate.ts";
import type { Servers } from "./server-gates.ts";

export const GATE_NAMES = [
  "gap",
  "lag",
  "backfill",
  "verify",
  "shadow",
  "quarantine",
  "sidecars",
  "reverse",
  "approvals",
  "stay",
  "window",
  "canary",
  "drill",
  "round-trip",
  "transactions",
  "replicas",
  "wal",
  "disk",
  "room",
  "rebuild",
] as const;
export type GateName = (typeof GATE_NAMES)[number];

export interface Gate {
  readonly name: GateName;
  readonly state: "pass" | "fail" | "unknown";
  readonly value: string | number | null;
  readonly limit: string | number | null;
  /** How many observations the verdict rests on, where it rests on a count. */
  readonly samples?: number;
  /** A sentence, also of what passes. */
  readonly why: string;
}

/** A verdict, and whether waiting or a verify run may change it: `--wait` waits only for those. */
export interface GateResult extends Gate {
  readonly heals: "never" | "by-waiting" | "by-verify";
}

export interface QuarantineCount {
  /** Keys that are quarantined or still deferred, and not accepted. */
  readonly open: number;
  readonly accepted: number;
}

/** Everything the gates look at, of one moment. */
export interface GateFacts {
  readonly migration: Migration;
  readonly mirror: WorkerSeen<"mirror"> | undefined;
  /** Chunk ledger of forward. */
  readonly progress: readonly TableProgress[];
  /** Last clean run over all tables in the active direction. */
  readonly clean: VerifyRun | undefined;
  /** Last run of the active direction, whatever it found. */
  readonly lastRun: VerifyRun | undefined;
  /** Of the active direction; a text says why it cannot be read. */
  readonly quarantine: QuarantineCount | string;
  readonly sidecars: readonly SidecarSeen[];
  readonly approvals: readonly {
    readonly phase: Phase;
    readonly name: string;
    readonly reason?: string | undefined;
  }[];
  /** Going to write-new without a reverse mapping was confirmed, now or before. */
  readonly noWayBack: boolean;
  /** How long the migration has been in its phase, in canary: in its step. */
  readonly inPhaseMs: number;
  readonly now: Date;
  /** The last one, good or not. */
  readonly drill: { readonly receipt: Receipt; readonly ageMs: number } | undefined;
  /** The last comparison of this epoch whose round trip says something. */
  readonly roundTrip: VerifyRun | undefined;
  /** Going back although rows do not come back as they are was confirmed, now. */
  readonly roundTripAccepted: boolean;
  /** Undefined: not asked, because the plan limits nothing there. */
  readonly servers: Servers | undefined;
  /** Undefined: not asked, because nothing is about to be copied. */
  readonly copy: CopyEstimate | undefined;
  /** What was dropped for the copy, also what is back. */
  readonly deferred: readonly DeferredRow[];
}

/** What of the plan limits them. */
export interface GateLimits {
  readonly lagMs: number;
  readonly verifyMaxAgeMs: number;
  /** `sample` 0: reads are not compared. `mismatch`: the largest share of compared reads. */
  readonly shadow: { readonly sample: number; readonly samples: number; readonly mismatch: number };
  readonly approvals: Readonly<Record<string, number>>;
  readonly reverse: boolean;
  readonly stayMs: Readonly<Partial<Record<Phase, number>>>;
  readonly windows: PolicyPlan["windows"];
  readonly canary: CompareLimits;
  readonly drillMaxAgeMs: number | undefined;
  readonly servers: ServerLimits;
  /** How much the copy may take on the new database's disk. */
  readonly diskFreeBytes: number | undefined;
}

/** Heartbeats come every second or so: older than this and a process says nothing about now. */
export const FRESH_MS = 5_000;

/** The direction that is active: where the authority's changes go. */
export function activeDirection(migration: Migration): Direction {
  return directionFrom(migration.authority);
}
