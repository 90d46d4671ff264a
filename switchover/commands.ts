import { openObjects } from "../backfill/rebuilding.ts";
import { CrossfadeError } from "../config/errors.ts";
import { otherSide } from "../config/words.ts";
import type { Direction } from "../config/words.ts";
import { resetChunks } from "../store/control/chunk-ledger.ts";
import type { Command } from "../store/control/commands.ts";
import { addApproval, addEvent } from "../store/control/history.ts";
import { changeMigration, readMigration } from "../store/control/migration.ts";
import type { Migration, MigrationChange } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { readVerifyExamples } from "../store/control/verify-runs.ts";
import { ident, relation } from "../store/postgres/quote.ts";
import { dropOld } from "./drop-old.ts";
import { recordedFlip, runEffect } from "./effects.ts";
import type { Execution } from "./effects.ts";
import { gateLimits } from "./facts.ts";
import { activeDirection } from "./gate-facts.ts";
import { DRILL_GATES, evaluateGates } from "./gates.ts";
import { loseUnmirrored } from "./lose-unmirrored.ts";
import { isRequestKind, parseArgs } from "./requests.ts";
import type { RequestArgs } from "./requests.ts";
import { advance, passGates, rollback } from "./walk.ts";

/** Executes one command and returns its result. Throws CrossfadeError. */
export async function executeRequest(
  execution: Execution,
  command: Pick<Command, "kind" | "args">,
): Promise<unknown> {
  const { kind, args } = command;
  if (!isRequestKind(kind)) throw new CrossfadeError("USAGE", `there is no command "${kind}"`);
  switch (kind) {
    case "advance": {
      const { to, ...options } = parseArgs(kind, args);
      return advance(execution, { to, ...options });
    }
    case "rollback": {
      const { to, loseUnmirrored: gone, ...options } = parseArgs(kind, args);
      if (gone) return loseUnmirrored(execution, { to, dryRun: options.dryRun });
      return rollback(execution, { to, ...options });
    }
    case "drill":
      return drill(execution, parseArgs(kind, args));
    case "verify":
      return verify(execution, parseArgs(kind, args));
    case "quarantine-retry":
      return retryQuarantine(execution, parseArgs(kind, args));
    case "quarantine-accept":
      return acceptQuarantine(execution, parseArgs(kind, args));
    case "approve":
      return approve(execution, parseArgs(kind, args));
    case "pause":
      return pause(execution, parseArgs(kind, args).what, true);
    case "resume":
      return resume(execution, parseArgs(kind, args).what);
    case "maintenance":
      return maintenance(execution, parseArgs(kind, args));
    case "tune":
      return tune(execution, parseArgs(kind, args));
    case "clean":
      return parseArgs(kind, args).dropOld ? dropOld(execution) : clean(execution);
  }
}

async function drill(execution: Execution, args: RequestArgs<"drill">): Promise<unknown> {
  const migration = await readMigration(execution.store);
  if (migration.phase === "off" || migration.phase === "done") {
    throw new CrossfadeError(
      "REFUSED",
      `in phase ${migration.phase} there is nothing to rehearse`,
      {
        hint: "A drill needs both sides installed and a mirror that keeps up: from dual-write to write-new.",
      },
    );
  }
  if (migration.authority === "new" && execution.plan.reverse === undefined) {
    throw new CrossfadeError(
      "REFUSED",
      "without a reverse mapping there is no flip back to rehearse",
    );
  }
  await passGates(execution, "drill", { wait: args.wait }, (facts) =>
    evaluateGates(DRILL_GATES, migration.phase, facts, gateLimits(execution.plan)),
  );
  return {
    receipt: await recordedFlip(execution, { kind: "drill", to: otherSide(migration.authority) }),
  };
}

async function verify(execution: Execution, args: RequestArgs<"verify">): Promise<unknown> {
  const { engine, store, by, signal } = execution;
  const migration = await readMigration(store);
  if (migration.phase === "off" || migration.phase === "done") {
    throw new CrossfadeError(
      "REFUSED",
      `in phase ${migration.phase} nothing is mirrored, so there is nothing to compare`,
    );
  }
  const direction = activeDirection(migration);
  const run = await engine.verify({
    direction,
    tables: args.tables,
    repair: args.repair,
    where: args.where,
    sample: args.sample,
    by,
    signal,
  });
  await addEvent(store, {
    kind: "verify",
    by,
    detail: { run: run.id, state: run.state, rows: run.rows, why: run.error ?? null },
  });
  return { run, examples: await readVerifyExamples(store, run.id) };
}

async function retryQuarantine(
  { engine, store, by }: Execution,
  { ids }: RequestArgs<"quarantine-retry">,
): Promise<unknown> {
  const direction = await mirroredDirection(store);
  const tried = await engine.retryQuarantine(direction, ids);
  if (ids !== undefined && tried === 0)
    throw new CrossfadeError("USAGE", `quarantine has no open key ${ids.join(", ")}`, {
      hint: "`crossfade quarantine list` shows them; what went through meanwhile is gone from it.",
    });
  const left = await engine.countQuarantine(direction);
  await addEvent(store, { kind: "quarantine-retry", by, detail: { tried, left: left.open } });
  return { tried, left: left.open };
}

/** Throws REFUSED where no quarantine exists. */
async function mirroredDirection(store: ControlStore): Promise<Direction> {
  const migration = await readMigration(store);
  if (migration.phase === "off" || migration.phase === "done") {
    throw new CrossfadeError(
      "REFUSED",
      `in phase ${migration.phase} nothing is mirrored, so nothing is quarantined`,
    );
  }
  return activeDirection(migration);
}

async function acceptQuarantine(
  { engine, store, by }: Execution,
  args: RequestArgs<"quarantine-accept">,
): Promise<unknown> {
  const direction = await mirroredDirection(store);
  const person = args.as ?? by;
  const key = (await engine.listQuarantine(direction)).find(({ id }) => id === args.id);
  if (
    !(await engine.acceptQuarantine(direction, { id: args.id, by: person, reason: args.reason }))
  ) {
    throw new CrossfadeError("USAGE", `quarantine has no open key ${args.id}`, {
      hint: "`crossfade quarantine list` shows them. A row that changed since and is refused again has a new id.",
    });
  }
  await addEvent(store, {
    kind: "quarantine-accept",
    by: person,
    detail: { id: args.id, mapping: key?.mapping, key: key?.key.join(", "), reason: args.reason },
  });
  return { accepted: args.id };
}

async function approve(
  { store }: Execution,
  { phase, as, reason }: RequestArgs<"approve">,
): Promise<unknown> {
  const added = await addApproval(store, {
    phase,
    name: as,
    ...(reason === undefined ? {} : { reason }),
  });
  if (added)
    await addEvent(store, {
      kind: "approve",
      by: as,
      detail: { phase, ...(reason === undefined ? {} : { reason }) },
    });
  return { phase, name: as, added };
}

async function pause(
  execution: Execution,
  what: RequestArgs<"pause">["what"],
  paused: boolean,
): Promise<unknown> {
  const { store, by } = execution;
  const change = { backfill: paused, mirror: paused };
  const after = await changeInAnyPhase(store, () => ({
    paused: what === "all" ? change : { [what]: paused },
  }));
  await addEvent(store, { kind: paused ? "pause" : "resume", by, detail: { what } });
  return { paused: after.paused };
}

/** Also gives failed chunks another chance: whoever resumes has removed the reason. After a flip those of the way back, which a gap had copied. */
async function resume(execution: Execution, what: RequestArgs<"resume">["what"]): Promise<unknown> {
  const { store } = execution;
  const taken = await takeChangedShapes(execution);
  const result = await pause(execution, what, false);
  const direction = activeDirection(await readMigration(store));
  const retried = what === "mirror" ? 0 : await resetChunks(store, direction, { onlyFailed: true });
  return { ...(result as object), chunks_retried: retried, tables_taken: taken };
}

/**
 * DDL on mapped tables was seen and everything stopped: the tables are taken as they are now. The gap comes first, so that
 * whatever happens here, nothing counts before every table is copied and compared again.
 */
async function takeChangedShapes(execution: Execution): Promise<readonly string[]> {
  const { store, engine, lead, by } = execution;
  const migration = await readMigration(store);
  if (migration.phase === "off" || migration.phase === "done") return [];
  const changed = await engine.changedShapes(activeDirection(migration));
  if (changed.length === 0) return [];
  await engine.check();
  await changeInAnyPhase(store, () => ({ gap: `tables were changed: ${changed.join("; ")}` }));
  await engine.acceptShapes(lead);
  await addEvent(store, { kind: "shapes-taken", by, detail: { changed } });
  return changed;
}

/** Reads go on; sidecars answer writes with 503. Neither phase nor authority depend on it. */
async function maintenance(
  { store, plan, by }: Execution,
  { on, message }: RequestArgs<"maintenance">,
): Promise<unknown> {
  const said = on ? (message ?? plan.maintenance.message) : null;
  await changeInAnyPhase(store, () => ({ maintenance: said }));
  await addEvent(store, { kind: "maintenance", by, detail: { on, message: said } });
  return { maintenance: said };
}

async function tune(
  { store, by }: Execution,
  { key, value }: RequestArgs<"tune">,
): Promise<unknown> {
  const after = await changeInAnyPhase(store, ({ throttle }) => {
    const { [key]: _, ...others } = throttle;
    return { throttle: value === null ? others : { ...others, [key]: value } };
  });
  await addEvent(store, { kind: "tune", by, detail: { key, value } });
  return { throttle: after.throttle };
}

/**
 * Removes everything on both sides. The control store goes last, by whoever asked: its result is in there. From a phase
 * with old as the authority it goes back to off first, so that every sidecar has left new before new is let go.
 */
async function clean(execution: Execution): Promise<unknown> {
  const { phase, authority } = await readMigration(execution.store);
  if (phase !== "off" && phase !== "done") {
    if (authority === "new") {
      throw new CrossfadeError(
        "REFUSED",
        `clean would leave old behind: new is the authority in ${phase}`,
        {
          hint: "Go back (`crossfade rollback --to off`) or finish (`crossfade advance --to done`) first.",
        },
      );
    }
    await rollback(execution, { to: "off", wait: true, dryRun: false });
  }
  await runEffect(execution, { do: "uninstall" });
  // Its definitions go with the control store.
  await runEffect(execution, { do: "rebuild" });
  await addEvent(execution.store, { kind: "clean", by: execution.by });
  const unproven = (await openObjects(execution.store)).map(
    ({ schema, table, name }) =>
      `alter table ${relation(schema, table)} validate constraint ${ident(name)}`,
  );
  return { cleaned: true, unproven };
}

/** A change that holds in every phase: repeated until it meets the row unchanged. */
async function changeInAnyPhase(
  store: ControlStore,
  change: (now: Migration) => MigrationChange,
): Promise<Migration> {
  for (;;) {
    const now = await readMigration(store);
    const { phase, epoch, version } = now;
    const after = await changeMigration(store, { phase, epoch, version }, change(now));
    if (after !== undefined) return after;
  }
}
