import type { Direction, Side } from "../config/words.ts";
import type { DeferredRow } from "../store/control/deferred-objects.ts";
import type { Receipt } from "../store/control/history.ts";
import type { VerifyRun } from "../store/control/verify-runs.ts";
import type { Recovery } from "./flip-types.ts";
import type { Attempt } from "../store/postgres/state.ts";
import type { QuarantineCount } from "./gate-facts.ts";
import type { Unmirrored } from "./lose-unmirrored.ts";
import type { Effect } from "./machine.ts";
import type { CopyEstimate } from "./room-gate.ts";
import type { Servers } from "./server-gates.ts";
import type { StepSql } from "./step-sql.ts";

/**
 * What the controller lets others do: everything that touches the two sides. One seam, so that phases, gates and commands
 * can be read (and tested) without it. Everything can be repeated; wiring.ts has the real one.
 */
export interface Engine {
  /** Reads both catalogs and compiles every mapping; throws DATABASE_UNREACHABLE or DATABASE_UNFIT. Changes nothing. */
  check(): Promise<void>;
  /** State rows, feeds, positions and guards on both sides, guard of the follower armed. */
  install(lead: LeadCheck): Promise<void>;
  /** Mapped tables that DDL changed while the migration runs, in words. */
  changedShapes(direction: Direction): Promise<readonly string[]>;
  /** Takes the tables as they are now: triggers are made anew, and nothing is copied before they are complete. */
  acceptShapes(lead: LeadCheck): Promise<void>;
  /** Removes everything of this plan on both sides; leaves what belongs to another plan. */
  uninstall(lead: LeadCheck): Promise<void>;
  /** After done: feeds, mirror objects and new's guards go; the old tables are renamed aside and keep their guard. */
  teardown(lead: LeadCheck): Promise<void>;
  /** Drops the old tables that `teardown` moved aside; returns their names. */
  dropOld(): Promise<readonly string[]>;
  /** Cuts every driving table of a direction into chunks in the ledger. */
  planChunks(direction: Direction, signal: AbortSignal): Promise<void>;
  /** Writes down and drops on new what `backfill.defer` names. */
  defer(signal: AbortSignal): Promise<void>;
  /** Builds what was dropped for the copy; returns what could not be built. */
  rebuild(signal: AbortSignal): Promise<readonly DeferredRow[]>;
  /** Compares, and with `repair` syncs what differs; records the run. */
  verify(request: VerifyRequest): Promise<VerifyRun>;
  /** Ends whatever flip was interrupted, and records the authority as the databases say it. */
  recover(signal: AbortSignal): Promise<Recovery>;
  /** Moves the authority and records it in the migration row; a drill stops before its decision. */
  flip(request: FlipRequest): Promise<Receipt>;
  /** What of new old was never told; throws REFUSED while new answers or old is the authority. */
  unmirrored(): Promise<Unmirrored>;
  /** Makes old the authority on its own, beyond these numbers. */
  takeBack(known: { readonly epoch: number; readonly attempt: number }): Promise<Attempt>;
  /** What an effect would execute on the two databases; changes nothing, never throws. */
  sqlOf(effect: Effect): Promise<readonly StepSql[]>;
  countQuarantine(direction: Direction): Promise<QuarantineCount>;
  listQuarantine(direction: Direction): Promise<readonly QuarantinedKey[]>;
  /** Syncs quarantined keys again (all, or these); returns how many were tried. */
  retryQuarantine(direction: Direction, ids: readonly string[] | undefined): Promise<number>;
  /** A named person accepts that a key stays behind. False: there is no such open key. */
  acceptQuarantine(
    direction: Direction,
    loss: { readonly id: string; readonly by: string; readonly reason: string },
  ): Promise<boolean>;
  /**
   * Whether the sides agree on one authority, and nothing of a flip is left; undefined while one of them cannot be asked. For
   * when no flip runs. Never throws.
   */
  inOrder(): Promise<boolean | undefined>;
  /** What each database says of itself, for status; never throws. */
  sides(): Promise<Readonly<Record<Side, SideStatus>>>;
  /** How both servers are, as far as the plan's gates ask; undefined: they ask nothing. Never throws. */
  servers(): Promise<Servers | undefined>;
  /** What the copy will take, from a few rows of each table. Never throws. */
  estimateCopy(): Promise<CopyEstimate>;
}

/** Throws STALE when this process does not lead any more: asked before each step that a successor might undo. */
export type LeadCheck = () => Promise<void>;

export interface VerifyRequest {
  readonly direction: Direction;
  /** Only these tables, of either side; undefined: all. */
  readonly tables: readonly string[] | undefined;
  readonly repair: boolean;
  /** SQL over the rows of the driving tables: only those. */
  readonly where?: string | undefined;
  /** Share of the chunks, chosen at random. */
  readonly sample?: number | undefined;
  readonly by: string;
  readonly signal: AbortSignal;
}

export interface FlipRequest {
  readonly kind: "flip" | "rollback" | "drill";
  readonly to: Side;
  readonly by: string;
  /** Stops what would be repeated until it succeeds; after the decision `recover` goes on. */
  readonly signal: AbortSignal;
  /** Has it undone if it is not decided yet: something else was asked for. */
  readonly calledOff: AbortSignal;
}

export interface QuarantinedKey {
  readonly id: string;
  readonly mapping: string;
  readonly source_table: string;
  readonly key: readonly string[];
  readonly reason: string;
  readonly sqlstate: string | null;
  readonly state: "deferred" | "quarantined" | "accepted";
  readonly at: string;
  readonly attempts: number;
}

export type SideStatus =
  | {
      readonly reachable: true;
      /** Of the server, as it names it: `18.1`. */
      readonly version: string;
      /** What its state row says; null where nothing is installed. */
      readonly state: { readonly authority: Side; readonly epoch: number } | null;
      readonly refused_writes: number;
    }
  | { readonly reachable: false; readonly why: string };
