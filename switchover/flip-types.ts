import type { Log } from "../config/lifecycle.ts";
import type { Phase, Side } from "../config/words.ts";
import type { TableRef } from "../store/postgres/guard-tables.ts";
import type { ColumnSource } from "../store/postgres/sequences.ts";
import type { Attempt, AttemptKind } from "../store/postgres/state.ts";

/** The steps of an attempt in their order; each is also a failpoint (after it) and a line of the receipt. */
export const FLIP_STEPS = [
  "begin",
  "feeds",
  "arm",
  "sequences",
  "lag",
  "hold",
  "guard",
  "fence",
  "sequences-again",
  "switch",
  "close",
  "decide",
  "follow",
  "open",
  "publish",
  "acknowledge",
  "release",
  "end",
  "disarm",
] as const;
export type FlipStep = (typeof FLIP_STEPS)[number];

/** The steps of a recovery, likewise; `open` to `disarm` follow when it goes forward. */
export const RECOVERY_STEPS = [
  "raise",
  "undo",
  "close-again",
  "arm-again",
  "turn-again",
  "switch-again",
] as const;
export type RecoveryStep = (typeof RECOVERY_STEPS)[number];

/** Places inside a step where one of two databases is written and the other is not. */
export const HALF_STEPS = ["begin-half", "raise-half", "end-half"] as const;

export type FlipFailpoint = FlipStep | RecoveryStep | (typeof HALF_STEPS)[number];

/** One side, as a flip needs it. */
export interface FlipSide {
  /** A secret: never printed. */
  readonly url: string;
  readonly schema: string;
  /** The mapped tables: what the guard covers and whose sequences are raised. */
  readonly tables: readonly TableRef[];
}

/** What a hold or an epoch was not acknowledged by; empty: everybody did. */
export interface Acknowledged {
  readonly missing: readonly string[];
}

export interface Publication {
  readonly authority: Side;
  readonly epoch: number;
  /** What the request said; a recovery does not know it. */
  readonly phase?: Phase | undefined;
  /**
   * Throws STALE when the attempt was overtaken. Asked before anything is replaced that others may have recorded since the
   * hold: whoever overtakes changes the row, so that a row unchanged since the hold says the same.
   */
  readonly mustBeNewest?: () => Promise<void>;
}

/** What the sidecars measured while they held writes for an attempt. */
export interface HeldStats {
  readonly writes_held: number;
  readonly hold_ms: { readonly max: number; readonly p50: number; readonly p99: number };
  readonly failed: number;
}

/** What the sidecars acknowledge, heard until it is disposed of. */
export interface Acknowledgements extends Disposable {
  /** Resolves when every live sidecar has, or after `ms` with those that have not. */
  untilAll(ms: number): Promise<Acknowledged>;
}

/** The sidecars, through the control store. */
export interface Fleet {
  /**
   * Every live sidecar holds writes; resolves when all have and none has a write in flight, or after `waitMs` with those that
   * have not. The sidecars lift the hold by themselves `leaseMs` after the call. Must refuse an attempt lower than the last.
   */
  hold(hold: {
    readonly attempt: number;
    readonly leaseMs: number;
    readonly waitMs: number;
  }): Promise<Acknowledged>;
  /**
   * Records authority and epoch in the control store and notifies. Repeated after failures; an epoch lower than the recorded
   * one must change nothing.
   */
  publish(news: Publication): Promise<void>;
  /**
   * From now on hears who routes by `epoch` or a higher one. Asked for before that is recorded: a sidecar may answer sooner than
   * whoever records it knows that it is.
   */
  listenForEpoch(epoch: number): Acknowledgements;
  /** Ends the hold of this attempt and of every lower one: a recovery releases what a dead controller held. */
  release(attempt: number): Promise<void>;
  heldStats(attempt: number): Promise<HeldStats>;
}

export interface FlipLimits {
  /** The preparation as a whole: nothing of the app waits for it. */
  readonly prepareMs: number;
  /** The mirror may be this far behind when the hold begins. */
  readonly lagMs: number;
  /** How long the guard is tried to be taken off the authority's tables; every later `recover` tries again. */
  readonly disarmMs: number;
  /** How long an undo tries to reach both databases before it leaves the rest to `recover`. */
  readonly undoMs: number;
}

export const DEFAULT_LIMITS: FlipLimits = {
  prepareMs: 60_000,
  lagMs: 100,
  disarmMs: 2_000,
  undoMs: 10_000,
};

export interface FlipDeps {
  readonly plan: string;
  readonly sides: Readonly<Record<Side, FlipSide>>;
  /** Columns of `to` whose numbers come from a differently named column of the other side. */
  readonly columnSources?: (to: Side) => readonly ColumnSource[];
  /**
   * Installs the feed of a side if it is not there (an installed one is left alone); when it returns it is committed. The
   * signal stops it where it would wait.
   */
  readonly ensureFeed: (side: Side, signal?: AbortSignal) => Promise<void>;
  /** How far the mirror is behind, ms; undefined: unknown, which blocks. */
  readonly lag: () => Promise<number | undefined>;
  readonly fleet: Fleet;
  readonly log: Log;
  /** Called after every step; the default does nothing unless a test armed it. */
  readonly failpoint?: (name: FlipFailpoint) => Promise<void>;
  readonly onStep?: (step: ReceiptStep) => void;
  /** Stops what would be repeated until it succeeds. After a decision the flip is then left to `recover`. */
  readonly signal?: AbortSignal;
  /** Aborted when the flip is not wanted any more: it is undone if it is not decided yet. After the decision nobody looks. */
  readonly calledOff?: AbortSignal;
  readonly limits?: Partial<FlipLimits>;
}

export interface FlipRequest {
  readonly kind: AttemptKind;
  readonly from: Side;
  readonly to: Side;
  /** Who asked: for the log. */
  readonly by: string;
  /** The time of the hold: the decision falls well within it or not at all. The sidecars' lease is a little longer. */
  readonly budgetMs: number;
  /** Handed to `fleet.publish`. */
  readonly phase?: Phase;
}

export interface ReceiptStep {
  readonly name: FlipStep | RecoveryStep;
  readonly ms: number;
}

/** DESIGN §5. `ok` false: undone, nothing moved, `why` says what was in the way. Measures are null when nobody measured. */
export interface Receipt {
  readonly kind: AttemptKind;
  readonly ok: boolean;
  readonly from: Side;
  readonly to: Side;
  /** The epoch that is active after it. */
  readonly epoch: number;
  readonly writes_held: number | null;
  readonly hold_ms: { readonly max: number; readonly p50: number; readonly p99: number } | null;
  readonly failed: number | null;
  readonly steps: readonly ReceiptStep[];
  readonly why: string | null;
}

/** How a recovery found things and left them. */
export interface Recovery {
  /** `settled`: there was nothing to do. `undone`: the authority stayed. `completed`: the authority moved to the attempt's `to`. */
  readonly outcome: "settled" | "undone" | "completed";
  readonly authority: Side;
  readonly epoch: number;
  /** The attempt that was resolved (with the number recovery gave it); undefined when nothing was to do. */
  readonly attempt: Attempt | undefined;
}
