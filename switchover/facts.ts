import { messageOf } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import { readDeferred } from "../store/control/deferred-objects.ts";
import { lastDrill, readApprovals } from "../store/control/history.ts";
import { readMigration, readPhaseAge } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { lastRoundTrip, lastVerifyRun } from "../store/control/verify-runs.ts";
import { readWorkers } from "../store/control/workers.ts";
import type { Engine } from "./engine.ts";
import { activeDirection } from "./gate-facts.ts";
import type { GateFacts, GateLimits } from "./gate-facts.ts";
import type { MachineFacts } from "./machine.ts";

/** Reads everything the gates look at. */
export async function gatherFacts(
  store: ControlStore,
  engine: Engine,
  said: {
    readonly noWayBack?: boolean;
    readonly acceptRoundTrip?: boolean;
    /** `false`: whoever asks does not look at them. */
    readonly servers?: boolean;
    /** `true`: what the copy will take is estimated, which takes seconds. */
    readonly copy?: boolean;
  } = {},
): Promise<GateFacts> {
  const migration = await readMigration(store);
  const direction = activeDirection(migration);
  const [
    mirrors,
    chunks,
    clean,
    lastRun,
    roundTrip,
    sidecars,
    approvals,
    drill,
    inPhaseMs,
    quarantine,
    servers,
    copy,
    deferred,
  ] = await Promise.all([
    readWorkers(store, "mirror"),
    progress(store, "forward"),
    lastVerifyRun(store, direction, { onlyClean: true }),
    lastVerifyRun(store, direction),
    lastRoundTrip(store, migration.epoch),
    readSidecars(store),
    readApprovals(store),
    lastDrill(store),
    readPhaseAge(store),
    // In off nothing is installed, so there is nothing to count.
    migration.phase === "off"
      ? { open: 0, accepted: 0 }
      : engine.countQuarantine(direction).catch(messageOf),
    said.servers === false ? undefined : engine.servers(),
    said.copy === true ? engine.estimateCopy() : undefined,
    readDeferred(store),
  ]);
  return {
    migration,
    mirror: mirrors[0],
    progress: chunks,
    clean,
    lastRun,
    quarantine,
    sidecars,
    approvals,
    noWayBack: said.noWayBack === true || migration.noWayBack,
    roundTrip,
    roundTripAccepted: said.acceptRoundTrip === true,
    inPhaseMs,
    now: new Date(),
    drill,
    servers,
    copy,
    deferred,
  };
}

/** What of the plan limits the gates. */
export function gateLimits(plan: Plan): GateLimits {
  return {
    lagMs: plan.gates.lagMs,
    verifyMaxAgeMs: plan.gates.verifyMaxAgeMs,
    shadow: { sample: plan.shadow.sample, ...plan.gates.shadow },
    approvals: plan.approvals,
    reverse: plan.reverse !== undefined,
    stayMs: {
      ...plan.policy.stayMs,
      canary: Math.max(plan.canary.stayMs, plan.policy.stayMs.canary ?? 0),
    },
    windows: plan.policy.windows,
    canary: plan.gates.canary,
    drillMaxAgeMs: plan.policy.drillMaxAgeMs,
    servers: plan.policy.servers,
    diskFreeBytes: plan.backfill.diskFreeBytes,
  };
}

/** What of the plan the phase machine depends on. */
export function machineFacts(plan: Plan): MachineFacts {
  return {
    canarySteps: plan.canary.steps,
    reverse: plan.reverse !== undefined,
    defer: plan.backfill.defer.length > 0,
  };
}
