import { wouldDefer } from "../backfill/deferring.ts";
import { missingObjects } from "../backfill/rebuilding.ts";
import { messageOf } from "../config/errors.ts";
import { redact } from "../config/describe.ts";
import { SIDES, directionFrom, otherSide } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import type { DeferredObject } from "../store/control/deferred-objects.ts";
import { readMigration } from "../store/control/migration.ts";
import { directionLock, guardLock } from "../store/postgres/locks.ts";
import { buildSql, dropSql } from "../store/postgres/rebuild.ts";
import { rehearse } from "../store/postgres/rehearsal.ts";
import {
  endAttemptSql,
  expectStateSql,
  writeAttemptSql,
  writeDirectionSql,
} from "../store/postgres/state.ts";
import { compileBoth, onSide } from "./both-sides.ts";
import type { Wiring } from "./both-sides.ts";
import type { Effect } from "./machine.ts";
import { installSides, teardownSides, uninstallSides } from "./sides.ts";

/** What an effect would execute on the two databases, for `--dry-run`. Changes nothing. */

export interface StepSql {
  readonly on: Side;
  readonly sql: string;
}

/** The statements of an effect; none for those that only read, or write to the control store alone. */
export async function sqlOfEffect(wiring: Wiring, effect: Effect): Promise<readonly StepSql[]> {
  try {
    switch (effect.do) {
      case "install": {
        const compiled = await compileBoth(wiring.plan);
        return await rehearsed(wiring, (rehearsing) => installSides(rehearsing, compiled, noLead));
      }
      case "uninstall":
        return await rehearsed(wiring, (rehearsing) => uninstallSides(rehearsing, noLead));
      case "teardown":
        return await rehearsed(wiring, (rehearsing) => teardownSides(rehearsing, noLead));
      case "flip":
        return await flipSql(wiring, effect);
      case "defer":
        return await deferSql(wiring);
      case "rebuild":
        return (await missingObjects(wiring.store)).flatMap(buildStatements);
      case "check":
      case "plan-chunks":
      case "forget-chunks":
      case "verify":
      case "set":
        return [];
    }
  } catch (error) {
    // Gates are worth seeing all the same.
    return [{ on: "new", sql: `-- not known: ${redact(messageOf(error))}` }];
  }
}

/** What would be dropped now, and what builds it again once rows are copied. */
async function deferSql({ plan }: Wiring): Promise<StepSql[]> {
  const { forward } = await compileBoth(plan);
  const { objects } = await wouldDefer(plan, forward);
  return [
    ...objects.map((object): StepSql => ({ on: "new", sql: dropSql(object) })),
    ...(objects.length === 0 ? [] : [{ on: "new" as const, sql: "-- once rows are copied:" }]),
    ...objects.flatMap(buildStatements),
  ];
}

function buildStatements(object: DeferredObject): StepSql[] {
  return buildSql(object).map((sql) => ({ on: "new", sql }));
}

async function noLead(): Promise<void> {}

/** Sides one after the other, as the effects go about it. */
async function rehearsed(
  wiring: Wiring,
  work: (rehearsing: Wiring) => Promise<void>,
): Promise<StepSql[]> {
  const found: StepSql[] = [];
  const rehearsing: Wiring = {
    ...wiring,
    session: (side, step) =>
      onSide(wiring, side, async (client) => {
        let result: unknown;
        const statements = await rehearse(client, async (recording) => {
          result = await step(recording);
        });
        found.push(...statements.map((sql) => ({ on: side, sql })));
        return result;
      }),
  };
  await work(rehearsing);
  return found;
}

/** The statements that a flip begins, decides and ends with, of the builders it uses itself. */
async function flipSql(
  { store }: Wiring,
  { kind, to }: Extract<Effect, { do: "flip" }>,
): Promise<StepSql[]> {
  const { epoch: before, lastAttempt } = await readMigration(store);
  const from = otherSide(to);
  const epoch = before + 1;
  const number = lastAttempt + 1;
  const [guard, direction] = [guardLock(from), directionLock(to)];
  const lock = ({ classId, objectId }: typeof guard) =>
    `select pg_advisory_xact_lock(${classId}, ${objectId})`;
  const turn = (side: Side) => writeDirectionSql(side, directionFrom(to), epoch);
  return [
    ...SIDES.map((on) => ({ on, sql: writeAttemptSql(on, { number, kind, from, to, epoch }) })),
    { on: from, sql: expectStateSql(from, { attempt: number, guardOpen: true }) },
    { on: from, sql: lock(guard) },
    { on: to, sql: lock(direction) },
    { on: to, sql: turn(to) },
    { on: from, sql: turn(from) },
    { on: from, sql: `select setval('crossfade.guard_${from}', 1)` },
    { on: to, sql: `select setval('crossfade.guard_${to}', 0)` },
    ...SIDES.map((on) => ({ on, sql: endAttemptSql(on) })),
  ];
}
