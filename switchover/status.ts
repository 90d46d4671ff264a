import { redact } from "../config/describe.ts";
import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Direction, Phase, Side } from "../config/words.ts";
import type { DeferredRow } from "../store/control/deferred-objects.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import type { TableProgress } from "../store/control/chunk-ledger.ts";
import { readReceipts, recentEvent } from "../store/control/history.ts";
import type { Receipt, TimelineEvent } from "../store/control/history.ts";
import type { ControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import { NO_SHADOW } from "../store/control/shadow-report.ts";
import type { ShadowReport } from "../store/control/shadow-report.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";
import { lastVerifyRun } from "../store/control/verify-runs.ts";
import type { RoundTrip, VerifyRun } from "../store/control/verify-runs.ts";
import { readWorkers } from "../store/control/workers.ts";
import type { BackfillStats, MirrorStats, WorkerSeen } from "../store/control/workers.ts";
import type { Engine, SideStatus } from "./engine.ts";
import { gateLimits, gatherFacts, machineFacts } from "./facts.ts";
import { FRESH_MS, activeDirection } from "./gate-facts.ts";
import { gatesInto } from "./gates.ts";
import type { Gate, GateFacts } from "./gate-facts.ts";
import { someoneLeads } from "./lead.ts";
import { transition } from "./machine.ts";
import { nextStep } from "./next-step.ts";
import { sumShadow } from "./shadow.ts";
import { withoutHeals } from "./walk.ts";

/** `status --json` (DESIGN §5): every field in every phase. */
export interface Status {
  readonly plan: string;
  /** `unknown` while the control store is away: then authority and epoch are what the reachable sides say. */
  readonly phase: Phase | "unknown";
  readonly phase_since: string | null;
  readonly authority: Side;
  readonly epoch: number;
  readonly reads: { readonly new: number };
  readonly canary_step: number;
  readonly mirror: MirrorStatus;
  readonly backfill: {
    readonly state: "none" | "running" | "paused" | "done" | "failed";
    readonly throttle: string | null;
    readonly rows_per_s: number;
    readonly tables: readonly TableStatus[];
    /** What was dropped on new for the copy, and how far it is back. */
    readonly deferred: readonly DeferredStatus[];
  };
  readonly verify: {
    readonly state: "none" | VerifyRun["state"];
    /** Why the last run did not get to its end. */
    readonly why: string | null;
    readonly clean_at: string | null;
    readonly missing: number;
    readonly extra: number;
    readonly different: number;
    /** Whether rows of new would come back from old as they are; null: not proved since the flip. */
    readonly round_trip: RoundTripStatus | null;
  };
  /** Since the phase shadow was entered. */
  readonly shadow: ShadowReport;
  /** The gates on the way into the next phase, in canary into its next step. */
  readonly gates: readonly Gate[];
  /** What can be done next, in a sentence. */
  readonly next: string;
  /** Keys left behind whose loss nobody has accepted; null while the side that holds them does not answer. */
  readonly quarantine: number | null;
  /** Crossfade went back by itself, and leaves it to people until the cool-down is over. */
  readonly went_back: WentBack | null;
  readonly flip: Receipt | null;
  readonly sidecars: readonly SidecarStatus[];
  readonly controller: { readonly leading: boolean; readonly doing: string | null };
  readonly paused: { readonly backfill: boolean; readonly mirror: boolean };
  /** What writes are answered with while maintenance is on. */
  readonly maintenance: string | null;
  readonly gap: string | null;
  readonly databases: Readonly<Record<Side, SideStatus>>;
  /** What status itself could not find out, and why. */
  readonly problems: readonly string[];
}

export interface WentBack {
  readonly at: string;
  readonly from: Phase;
  readonly why: string;
  /** From then on it may do so again. */
  readonly until: string;
}

export interface RoundTripStatus {
  readonly at: string | null;
  readonly compared: number;
  readonly failed: number;
  readonly examples: RoundTrip["examples"];
}

export interface MirrorStatus {
  readonly direction: Direction;
  readonly lag_ms: number | null;
  readonly keys: number;
  readonly passes: number;
  readonly deferred: number;
  readonly state: MirrorStats["state"] | "absent";
  readonly why: string | null;
}

export interface DeferredStatus {
  readonly kind: DeferredRow["kind"];
  readonly table: string;
  readonly name: string;
  readonly state: DeferredRow["state"];
  readonly error: string | null;
}

export interface TableStatus {
  readonly table: string;
  readonly chunks: number;
  readonly done: number;
  readonly failed: number;
  readonly rows: number;
  readonly eta_s: number | null;
}

export interface SidecarStatus {
  readonly id: string;
  readonly epoch: number;
  readonly seen_ms: number;
  readonly holding: boolean;
  /** The new app does not answer: the authority answers its reads. */
  readonly new_app_down: boolean;
}

export interface StatusInput {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly engine: Engine;
  readonly log: Log;
}

/** Assembles the status from the control store and both sides. Works without a controller, and before anything is installed. */
export async function readStatus(input: StatusInput): Promise<Status> {
  const { plan, store, engine } = input;
  const databases = await engine.sides();
  const problems = (["old", "new"] as const).flatMap((side) => {
    const status = databases[side];
    return status.reachable ? [] : [`${side} database: ${status.why}`];
  });
  try {
    if (!(await isInstalled(store))) return { ...emptyStatus(plan.name), databases, problems };
    return { ...(await statusOfStore(input)), databases, problems };
  } catch (error) {
    problems.push(redact(messageOf(error)));
    return {
      ...emptyStatus(plan.name),
      phase: "unknown",
      quarantine: null,
      next: "nothing moves without the control store; sidecars route as they last knew",
      ...authorityOfSides(databases),
      databases,
      problems,
    };
  }
}

async function statusOfStore({
  plan,
  store,
  engine,
}: StatusInput): Promise<Omit<Status, "databases" | "problems">> {
  const facts = await gatherFacts(store, engine);
  const { migration } = facts;
  const direction = activeDirection(migration);
  const decided = transition(migration, { kind: "advance" }, machineFacts(plan));
  const cooldownMs = plan.policy.rollbackOn?.cooldownMs ?? 0;
  const [mirrors, backfills, controllers, chunks, receipts, leading, run, trigger] =
    await Promise.all([
      readWorkers(store, "mirror"),
      readWorkers(store, "backfill"),
      readWorkers(store, "control"),
      // What is copied: after a gap of the way back, the way back.
      progress(store, migration.gap === undefined ? "forward" : direction),
      readReceipts(store, 1),
      someoneLeads(store),
      lastVerifyRun(store, direction),
      recentEvent(store, "trigger", cooldownMs),
    ]);
  const gates = decided.kind === "go" ? gatesInto(decided.next.phase, facts, gateLimits(plan)) : [];
  return {
    plan: plan.name,
    phase: migration.phase,
    phase_since: migration.phaseSince.toISOString(),
    authority: migration.authority,
    epoch: migration.epoch,
    reads: { new: migration.readsNew },
    canary_step: migration.canaryStep,
    mirror: mirrorStatus(direction, mirrors[0]),
    backfill: backfillStatus(facts, chunks, backfills),
    verify: verifyStatus(run, facts.clean, facts.roundTrip),
    shadow: sumShadow(facts.sidecars),
    gates: gates.map(withoutHeals),
    next: nextStep(migration, decided, gates, plan),
    quarantine: typeof facts.quarantine === "string" ? null : facts.quarantine.open,
    went_back: trigger === undefined ? null : wentBack(trigger, cooldownMs),
    flip: receipts[0] ?? null,
    sidecars: facts.sidecars.map(sidecarStatus),
    controller: { leading, doing: controllers[0]?.stats.doing ?? null },
    paused: migration.paused,
    maintenance: migration.maintenance ?? null,
    gap: migration.gap ?? null,
  };
}

function wentBack({ at, phase, detail }: TimelineEvent, cooldownMs: number): WentBack {
  return {
    at: at.toISOString(),
    from: phase,
    why: String(detail["why"]),
    until: new Date(at.getTime() + cooldownMs).toISOString(),
  };
}

function mirrorStatus(
  direction: Direction,
  mirror: WorkerSeen<"mirror"> | undefined,
): MirrorStatus {
  if (mirror === undefined || mirror.seenMs > FRESH_MS) {
    const counted = mirror?.stats ?? { keys: 0, passes: 0, deferred: 0 };
    const why =
      mirror === undefined
        ? "no mirror runs"
        : `last seen ${Math.round(mirror.seenMs / 1000)} s ago`;
    return {
      direction,
      lag_ms: null,
      keys: counted.keys,
      passes: counted.passes,
      deferred: counted.deferred,
      state: "absent",
      why,
    };
  }
  const { lag_ms, keys, passes, deferred, state, why } = mirror.stats;
  return {
    direction,
    lag_ms: state === "running" ? lag_ms : null,
    keys,
    passes,
    deferred,
    state,
    why: why ?? null,
  };
}

function backfillStatus(
  { migration, deferred }: GateFacts,
  tables: readonly TableProgress[],
  workers: readonly { readonly seenMs: number; readonly stats: BackfillStats }[],
): Status["backfill"] {
  const live = workers.filter((worker) => worker.seenMs <= FRESH_MS);
  const done = tables.every((table) => table.done === table.chunks);
  const failed = tables.some((table) => table.failed > 0);
  const state =
    tables.length === 0
      ? "none"
      : done
        ? "done"
        : failed
          ? "failed"
          : migration.paused.backfill
            ? "paused"
            : "running";
  return {
    state,
    throttle: live.find((worker) => worker.stats.throttle !== undefined)?.stats.throttle ?? null,
    rows_per_s: live.reduce((sum, worker) => sum + worker.stats.rows_per_s, 0),
    tables: tables.map(tableStatus),
    deferred: deferred.map(({ kind, table, name, state: how, error }) => ({
      kind,
      table,
      name,
      state: how,
      error: error ?? null,
    })),
  };
}

function tableStatus(table: TableProgress): TableStatus {
  const { chunks, done, failed, rows } = table;
  return { table: table.table, chunks, done, failed, rows, eta_s: etaSeconds(table) };
}

/** From the rate so far; null before the first chunk is done. */
export function etaSeconds({ chunks, done, rows, ms, estRowsLeft }: TableProgress): number | null {
  if (done === chunks) return 0;
  if (done === 0 || ms === 0 || rows === 0) return null;
  return Math.ceil(estRowsLeft / (rows / ms) / 1000);
}

function verifyStatus(
  run: VerifyRun | undefined,
  clean: VerifyRun | undefined,
  proof: VerifyRun | undefined,
): Status["verify"] {
  const trip = proof?.roundTrip;
  const { missing, extra, different } = run ?? { missing: 0, extra: 0, different: 0 };
  return {
    state: run?.state ?? "none",
    why: run?.error ?? null,
    clean_at: clean?.finishedAt?.toISOString() ?? null,
    missing,
    extra,
    different,
    round_trip:
      trip === undefined
        ? null
        : {
            at: proof?.finishedAt?.toISOString() ?? null,
            compared: trip.compared,
            failed: trip.failed,
            examples: trip.examples,
          },
  };
}

function sidecarStatus({ id, epoch, seenMs, holdAttempt, stats }: SidecarSeen): SidecarStatus {
  return {
    id,
    epoch,
    seen_ms: Math.round(seenMs),
    holding: holdAttempt !== undefined,
    new_app_down: stats.reads?.breaker === "open",
  };
}

/** What the sides themselves say: the higher epoch is right. */
function authorityOfSides(databases: Readonly<Record<Side, SideStatus>>): {
  authority: Side;
  epoch: number;
} {
  const known = Object.values(databases).flatMap((side) =>
    side.reachable && side.state !== null ? [side.state] : [],
  );
  const newest = known.toSorted((a, b) => b.epoch - a.epoch)[0];
  return newest === undefined ? { authority: "old", epoch: 0 } : newest;
}

/** Before anything began. */
function emptyStatus(plan: string): Omit<Status, "databases" | "problems"> {
  return {
    plan,
    phase: "off",
    phase_since: null,
    authority: "old",
    epoch: 0,
    reads: { new: 0 },
    canary_step: 0,
    mirror: mirrorStatus("forward", undefined),
    backfill: { state: "none", throttle: null, rows_per_s: 0, tables: [], deferred: [] },
    verify: verifyStatus(undefined, undefined, undefined),
    shadow: NO_SHADOW,
    gates: [],
    next: "`crossfade check` says what would break; `crossfade advance` goes to dual-write",
    quarantine: 0,
    went_back: null,
    flip: null,
    sidecars: [],
    controller: { leading: false, doing: null },
    paused: { backfill: false, mirror: false },
    maintenance: null,
    gap: null,
  };
}
