import type pg from "pg";
import { PlanError, type PlanIssue } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import { requireTlsFiles } from "../config/tls-files.ts";
import { type Direction, SIDES, type Side, sourceOf } from "../config/words.ts";
import { readCatalog } from "../store/postgres/catalog.ts";
import { compileDirection, mappedTables } from "../store/postgres/compile.ts";
import { tryReplicaRole } from "../store/postgres/engine.ts";
import type { CompiledDirection } from "../store/postgres/mapping.ts";
import { duplicateKeys } from "../store/postgres/plan-keys.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";
import { refuseActions } from "../store/postgres/target-actions.ts";
import { volatileCalls } from "../store/postgres/volatility.ts";
import { assertFit, type SideFacts, readSideFacts } from "./fitness.ts";

/** What a plan comes to on the databases it names. */
export interface Validated {
  readonly directions: readonly CompiledDirection[];
  /** Tables that the plan touches. */
  readonly tables: Readonly<Record<Side, readonly string[]>>;
}

/**
 * Proves that a plan can run before anything is installed: both databases answer, every table, column and key is
 * there, every mapping's SQL runs where it will run, the privileges suffice. Reads only.
 */
export async function validatePlan(plan: Plan): Promise<Validated> {
  requireTlsFiles(plan);
  await using sessions = new Sessions(plan);
  // One by one, so that the error of the old side comes first and no connection is left half open.
  const facts = {
    old: await readSideFacts(await sessions.open("old"), plan, "old"),
    new: await readSideFacts(await sessions.open("new"), plan, "new"),
  };
  refuseSamePlace(plan, facts);
  const directions = await compileAll(plan, sessions);
  const mapped = mappedTables(directions);
  const tables = {
    old: mapped.old.map((table) => table.name),
    new: mapped.new.map((table) => table.name),
  };
  for (const side of SIDES)
    await assertFit(await sessions.open(side), plan, side, facts[side], {
      tables: tables[side],
      logged: directions.find(({ source }) => source === side)?.logged ?? [],
    });
  await refuse(plan, directions, async (compiled) =>
    volatileCalls(compiled, {
      source: await sessions.open(compiled.source, plan[compiled.source].schema),
      mapper: await sessions.open("new", plan.new.schema),
    }),
  );
  // A key that the plan names has no index that keeps it unique: the rows themselves are looked at.
  await refuse(plan, directions, async (compiled) =>
    duplicateKeys(await sessions.open(compiled.source), compiled, plan[compiled.direction]),
  );
  for (const compiled of directions) {
    if (!(await tryReplicaRole(await sessions.open(compiled.target))))
      refuseActions(compiled, plan);
  }
  return { directions, tables };
}

/** Two names may mean one server: the servers themselves say whether they are the same. */
function refuseSamePlace(plan: Plan, facts: Readonly<Record<Side, SideFacts>>): void {
  const same =
    facts.old.system === facts.new.system &&
    facts.old.database === facts.new.database &&
    plan.old.schema === plan.new.schema;
  if (!same) return;
  const message =
    "is the same database and schema as old under another address, expected another database or another schema";
  throw new PlanError(plan.file, [{ path: "new", message }]);
}

/** Throws PlanError with what is found in either direction, all at once. */
async function refuse(
  plan: Plan,
  directions: readonly CompiledDirection[],
  find: (compiled: CompiledDirection) => Promise<readonly PlanIssue[]>,
): Promise<void> {
  const issues: PlanIssue[] = [];
  for (const compiled of directions) issues.push(...(await find(compiled)));
  if (issues.length > 0) throw new PlanError(plan.file, issues);
}

/** Problems of both directions at once. */
async function compileAll(plan: Plan, sessions: Sessions): Promise<CompiledDirection[]> {
  const wanted: readonly Direction[] =
    plan.reverse === undefined ? ["forward"] : ["forward", "reverse"];
  const catalogs = {
    old: await readCatalog(await sessions.open("old"), plan.old.schema),
    new: await readCatalog(await sessions.open("new"), plan.new.schema),
  };
  const issues: PlanIssue[] = [];
  const directions: CompiledDirection[] = [];
  for (const direction of wanted) {
    try {
      const source = sourceOf(direction);
      directions.push(
        await compileDirection({
          plan,
          direction,
          sourceCatalog: catalogs[source],
          targetCatalog: catalogs[source === "old" ? "new" : "old"],
          sourceClient: await sessions.open(source, plan[source].schema),
          mappingClient: await sessions.open("new", plan.new.schema),
        }),
      );
    } catch (error) {
      if (!(error instanceof PlanError)) throw error;
      issues.push(...error.issues);
    }
  }
  if (issues.length > 0) throw new PlanError(plan.file, issues);
  return directions;
}

/** Sessions by side and search_path, opened when first needed and closed together. */
class Sessions implements AsyncDisposable {
  readonly #plan: Plan;
  readonly #open = new Map<string, pg.Client>();

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  async open(side: Side, searchPath?: string): Promise<pg.Client> {
    const key = `${side} ${searchPath ?? ""}`;
    const found = this.#open.get(key);
    if (found !== undefined) return found;
    const session = await openSession({
      url: this.#plan[side].database,
      name: sideLabel(side),
      application: applicationName(this.#plan.name, "check", String(process.pid)),
      statementTimeoutMs: 30_000,
      ...(searchPath === undefined ? {} : { searchPath }),
    });
    this.#open.set(key, session);
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#open.values()].map(closeSession));
  }
}
