import { deferObjects } from "../backfill/deferring.ts";
import { planBackfill } from "../backfill/plan-chunks.ts";
import { missingObjects, rebuildDeferred } from "../backfill/rebuilding.ts";
import { retryQuarantined } from "../backfill/retry.ts";
import { runVerify } from "../backfill/verify.ts";
import { redact } from "../config/describe.ts";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { SIDES, otherSide, sourceOf, targetOf } from "../config/words.ts";
import type { Direction, Side } from "../config/words.ts";
import { readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import { readWorkers } from "../store/control/workers.ts";
import { dropAside } from "../store/postgres/drop-aside.ts";
import { refusedCount } from "../store/postgres/guard.ts";
import { acceptLoss, listQuarantine } from "../store/postgres/quarantine.ts";
import { unloggedTables } from "../store/postgres/logged-tables.ts";
import { changedShapes } from "../store/postgres/shape-watch.ts";
import { serverVersion } from "../store/postgres/server-health.ts";
import { findState } from "../store/postgres/state.ts";
import type { Attempt } from "../store/postgres/state.ts";
import {
  disarmOld,
  readFollowedUpTo,
  refuseAuthority,
  takeBack,
} from "../store/postgres/take-back.ts";
import { isSameDatabase } from "../store/postgres/compile.ts";
import { compileBoth, ensureFeed, onSide } from "./both-sides.ts";
import type { Wiring } from "./both-sides.ts";
import { columnSources } from "./column-sources.ts";
import type { Engine, FlipRequest, QuarantinedKey, SideStatus } from "./engine.ts";
import { openFleet } from "./fleet.ts";
import { within } from "./flip-budget.ts";
import { recover, sidesAgree } from "./flip-recover.ts";
import type { FlipDeps, Receipt, Recovery } from "./flip-types.ts";
import type { Unmirrored } from "./lose-unmirrored.ts";
import { runFlip } from "./flip.ts";
import { FRESH_MS, activeDirection } from "./gate-facts.ts";
import type { QuarantineCount } from "./gate-facts.ts";
import {
  acceptShapes,
  installSides,
  refuseLostStore,
  teardownSides,
  uninstallSides,
} from "./sides.ts";
import { estimatesOf } from "./room-gate.ts";
import { watchServers } from "./servers.ts";
import { sqlOfEffect } from "./step-sql.ts";

/** A database that has not said by then whether it is in order cannot be asked. */
const ANSWER_MS = 10_000;

/** The engine on both databases. */
export function openRealEngine(wiring: Wiring): Engine {
  return {
    async check() {
      await compileBoth(wiring.plan);
      if (await isInstalled(wiring.store)) await refuseLostStore(wiring);
    },
    async install(lead) {
      const compiled = await compileBoth(wiring.plan);
      await installSides(wiring, compiled, lead);
    },
    changedShapes: (direction) => changed(wiring, direction),
    async acceptShapes(lead) {
      const compiled = await compileBoth(wiring.plan);
      await acceptShapes(wiring, compiled, lead);
    },
    uninstall: (lead) => uninstallSides(wiring, lead),
    teardown: (lead) => teardownSides(wiring, lead),
    dropOld: () => onSide(wiring, "old", (client) => dropAside(client, "old")),
    async planChunks(direction) {
      const { epoch } = await readMigration(wiring.store);
      await planBackfill(wiring.plan, wiring.store, { direction, epoch });
    },
    async defer(signal) {
      const { forward } = await compileBoth(wiring.plan);
      await deferObjects({ ...wiring, signal }, forward);
    },
    async rebuild(signal) {
      const { store } = wiring;
      if ((await missingObjects(store)).length === 0) return [];
      await rebuildDeferred({ ...wiring, signal }, { wanted: async () => true, wait: true });
      return missingObjects(store);
    },
    async verify(request) {
      const { plan, store, log } = wiring;
      const { epoch } = await readMigration(store);
      return runVerify({ ...request, plan, store, log, epoch });
    },
    recover: (signal) => recoverFlip(wiring, signal),
    flip: (request) => flip(wiring, request),
    sqlOf: (effect) => sqlOfEffect(wiring, effect),
    unmirrored: () => unmirrored(wiring),
    takeBack: (known) => takeBackOld(wiring, known),
    countQuarantine: (direction) => countQuarantine(wiring, direction),
    listQuarantine: (direction) => quarantined(wiring, direction),
    retryQuarantine: async (direction, ids) => {
      const { plan, store, log } = wiring;
      const { epoch } = await readMigration(store);
      return retryQuarantined({ plan, log, direction, epoch, ids });
    },
    acceptQuarantine: (direction, { id, by, reason }) =>
      onSide(wiring, targetOf(direction), (client) => acceptLoss(client, id, by, reason)),
    inOrder: () => inOrder(wiring),
    sides: () => sideStatuses(wiring),
    servers: watchServers(wiring),
    estimateCopy: estimatesOf(wiring),
  };
}

async function changed(wiring: Wiring, direction: Direction): Promise<string[]> {
  const found: string[] = [];
  for (const side of SIDES) {
    const { schema } = wiring.plan[side];
    const role = side === sourceOf(direction) ? "source" : "target";
    const shapes = await onSide(wiring, side, (client) =>
      changedShapes({ client, side, schema, role }),
    );
    found.push(...shapes.map(({ table, what }) => `${side} ${table}: ${what.join(", ")}`));
  }
  // A plan that does not fit tables that changed is told of by whoever takes them.
  return found.length > 0 ? found : unlogged(wiring, direction);
}

/** The plan was edited: it follows what its feed does not log. */
async function unlogged(wiring: Wiring, direction: Direction): Promise<string[]> {
  const compiled = (await compileBoth(wiring.plan))[direction];
  if (compiled === undefined) return [];
  const found = await onSide(wiring, compiled.source, (client) => unloggedTables(client, compiled));
  return found.map((what) => `${compiled.source}: ${what}`);
}

async function flip(wiring: Wiring, request: FlipRequest): Promise<Receipt> {
  const { signal, calledOff, kind, to, by } = request;
  const deps = { ...(await flipDeps(wiring, signal)), calledOff };
  return runFlip(deps, {
    kind,
    by,
    from: otherSide(to),
    to,
    budgetMs: wiring.plan.flip.holdMs,
    ...(kind === "drill" ? {} : { phase: to === "new" ? "write-new" : "read-new" }),
  });
}

/** Also writes what the databases say into the migration row: a controller may have died between the two. */
async function recoverFlip(wiring: Wiring, signal: AbortSignal): Promise<Recovery> {
  const deps = await flipDeps(wiring, signal);
  const recovery = await recover(deps);
  await deps.fleet.publish(recovery);
  return recovery;
}

async function flipDeps(wiring: Wiring, signal: AbortSignal): Promise<FlipDeps> {
  const { plan, store, listener, log } = wiring;
  const compiled = await compileBoth(plan);
  const side = (name: Side) => ({
    url: plan[name].database,
    schema: plan[name].schema,
    tables: compiled.tables[name],
  });
  return {
    plan: plan.name,
    sides: { old: side("old"), new: side("new") },
    columnSources: (to) => columnSources(to === "new" ? compiled.forward : compiled.reverse),
    ensureFeed: (name, stop) => ensureFeed(wiring, compiled, name, stop),
    lag: () => currentLag(store),
    fleet: openFleet(store, listener),
    log,
    signal,
  };
}

/** Undefined: nobody who would know has reported. */
async function currentLag(store: ControlStore): Promise<number | undefined> {
  const [migration, [mirror]] = await Promise.all([
    readMigration(store),
    readWorkers(store, "mirror"),
  ]);
  if (mirror === undefined || mirror.seenMs > FRESH_MS || mirror.stats.state !== "running")
    return undefined;
  const { direction, epoch, lag_ms } = mirror.stats;
  return direction === activeDirection(migration) && epoch === migration.epoch ? lag_ms : undefined;
}

async function quarantined(wiring: Wiring, direction: Direction): Promise<QuarantinedKey[]> {
  const rows = await onSide(wiring, targetOf(direction), (client) =>
    listQuarantine(client, direction),
  );
  return rows.map(({ id, mapping, sourceTable, key, reason, sqlstate, state, at, attempts }) => ({
    id,
    mapping,
    source_table: sourceTable,
    key,
    reason,
    sqlstate: sqlstate ?? null,
    state,
    at,
    attempts,
  }));
}

async function unmirrored(wiring: Wiring): Promise<Unmirrored> {
  const { plan, store } = wiring;
  if (isSameDatabase(plan))
    throw new CrossfadeError("REFUSED", "both sides are in one database: neither is gone alone");
  const { old, new: next } = await sideStatuses(wiring);
  if (!old.reachable) throw new CrossfadeError("DATABASE_UNREACHABLE", `old database: ${old.why}`);
  if (next.reachable) {
    throw new CrossfadeError("REFUSED", "new answers: nothing has to be given up", {
      hint: "`crossfade rollback` goes back without losing a write.",
    });
  }
  const followed = await onSide(wiring, "old", async (client) => {
    await refuseAuthority(client);
    return readFollowedUpTo(client);
  });
  const [mirror] = await readWorkers(store, "mirror");
  const isReverse = mirror?.stats.direction === "reverse";
  const until = isReverse
    ? new Date(Date.now() - mirror.seenMs - mirror.stats.lag_ms).toISOString()
    : null;
  const { open: quarantined } = await countQuarantine(wiring, "reverse");
  const since =
    until === null
      ? "no mirror has reported, so it is not known since when"
      : `everything committed on new after ${until}`;
  const why = `lost is what old was not told: ${since}, beyond fence ${followed.fence ?? "none"} of its log${quarantined === 0 ? "" : `, and ${quarantined} quarantined keys`} (new does not answer: ${next.why})`;
  return { ...followed, mirrored_until: until, quarantined, why };
}

async function takeBackOld(
  wiring: Wiring,
  known: { readonly epoch: number; readonly attempt: number },
): Promise<Attempt> {
  return onSide(wiring, "old", async (client) => {
    const attempt = await takeBack(client, known);
    await disarmOld(client, attempt).catch((error: unknown) =>
      wiring.log.warn(
        { err: error },
        `the guard of the old side stays armed for now: ${messageOf(error)}`,
      ),
    );
    return attempt;
  });
}

async function countQuarantine(wiring: Wiring, direction: Direction): Promise<QuarantineCount> {
  const rows = await quarantined(wiring, direction);
  const accepted = rows.filter((row) => row.state === "accepted").length;
  return { open: rows.length - accepted, accepted };
}

async function inOrder(wiring: Wiring): Promise<boolean | undefined> {
  const { plan, log } = wiring;
  const url = (side: Side) => ({ url: plan[side].database });
  try {
    const sides = { old: url("old"), new: url("new") };
    return await within(ANSWER_MS, "both sides", sidesAgree({ plan: plan.name, sides, log }));
  } catch (error) {
    // Rows that contradict each other for good: recovery says so.
    return error instanceof CrossfadeError && error.code === "REFUSED" ? false : undefined;
  }
}

async function sideStatuses(wiring: Wiring): Promise<Record<Side, SideStatus>> {
  const [old, next] = await Promise.all(SIDES.map((side) => sideStatus(wiring, side)));
  return { old: old as SideStatus, new: next as SideStatus };
}

async function sideStatus(wiring: Wiring, side: Side): Promise<SideStatus> {
  try {
    return await onSide(wiring, side, async (client) => {
      const version = await serverVersion(client);
      const row = await findState(client, side);
      if (row === undefined) return { reachable: true, version, state: null, refused_writes: 0 };
      const state = { authority: sourceOf(row.direction), epoch: row.epoch };
      return { reachable: true, version, state, refused_writes: await refusedCount(client, side) };
    });
  } catch (error) {
    return { reachable: false, why: redact(messageOf(error)) };
  }
}
