import type { Phase, Side } from "../config/words.ts";
import type { SidecarStats } from "./stats-types.ts";

/** All a sidecar knows of the migration. */
export interface RoutingState {
  readonly phase: Phase;
  readonly epoch: number;
  /** The side that takes writes. */
  readonly authority: Side;
  /** Share of reads that new answers in canary, 0–1. */
  readonly readsNew: number;
  /** Decides which clients are in the canary. */
  readonly salt: string;
  readonly hold: HoldState | null;
  /** Fences say nothing at the moment (a database went back in time): reads leave new. */
  readonly lagging: boolean;
  /** What writes are answered with instead of being sent; null: they are sent. */
  readonly maintenance: string | null;
}

/** A hold is a lease: at its deadline the sidecar lifts it itself. */
export interface HoldState {
  /** The flip's (or drill's) attempt. */
  readonly attempt: number;
  /** On this process's monotonic clock, `performance.now()`: wall clocks of two machines differ. */
  readonly deadline: number;
}

/** The highest fence that the mirror has passed, and the epoch whose log it is from. */
export interface Passed {
  readonly epoch: number;
  readonly fence: bigint;
}

export interface Acknowledgement {
  /** The epoch this sidecar routes by. */
  readonly epoch: number;
  /** The attempt whose hold it keeps with no write left in flight, or null. */
  readonly hold: number | null;
  readonly inFlightWrites: number;
}

/** Where routing state comes from. Listeners are called synchronously and return nothing. */
export interface RoutingSource {
  /** The last state known; undefined until the first. It stays while the source is away (fail-static). */
  state(): RoutingState | undefined;
  passed(): Passed;
  /** Whether the state is current. */
  connected(): boolean;
  /** No other sidecar is registered: what this one knows of its clients is all there is to know. */
  alone(): boolean;
  /**
   * Every other sidecar gives the tokens that this one's reads need, and has done so since before now; one that is cut off
   * has noticed it by itself.
   */
  inStep(): boolean;
  /** How often what the other sidecars have promised was broken since the start: what was built on it has to begin anew. */
  breaks(): number;
  /** What this sidecar does for the reads of the others, from now on. Returns the pledge's number; they only grow. */
  pledge(carrier: string): number;
  /** Whether every other live sidecar has heard that pledge, or a later one, and no longer counts on an earlier one. */
  heard(pledge: number): boolean;
  /** Waits for that, at most so long. */
  untilHeard(pledge: number, ms: number): Promise<boolean>;
  /** Asks for the state. Resolves when it is as it was at the time of this call, or later, or cannot be had. */
  look(): Promise<void>;
  onState(listener: (state: RoutingState) => void): () => void;
  onPassed(listener: () => void): () => void;
  /** `connected`, `alone` or `inStep` changed. */
  onLink(listener: () => void): () => void;
  /** Resolves when it was told, or replaced by a later one. Never rejects: it is repeated until it arrives. */
  acknowledge(acknowledgement: Acknowledgement): Promise<void>;
  report(stats: SidecarStats): void;
  /** Registers the sidecar and reads the state. Resolves also when the source is away: then `connected()` is false. */
  start(): Promise<void>;
  /** Takes the sidecar off the list and lets go of everything. */
  stop(): Promise<void>;
}

/**
 * A causal token. `side` was the authority of `epoch` when the fence was written, `fence` is its id in that side's log.
 * Fence 0 stands before every fence: there is nothing to wait for.
 */
export interface Token {
  readonly side: Side;
  readonly epoch: number;
  readonly fence: bigint;
}

export interface FenceWriter {
  /**
   * Writes a fence to the log of `side`. If that side is not the authority any more, its log is read by nobody: the token
   * then names the newer epoch, the authority of that epoch, and fence 0. `traces` go along to the mirror.
   */
  write(side: Side, traces?: readonly string[]): Promise<Token>;
  stop(): Promise<void>;
}
