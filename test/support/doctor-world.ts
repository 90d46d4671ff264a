import { diagnose, type Diagnosis } from "../../backfill/doctor/doctor.ts";
import { validatePlan } from "../../cli/validate.ts";
import type { MappingPlan, Plan } from "../../config/plan-types.ts";
import { createDatabasePair, type DatabasePair, withClient } from "./databases.ts";
import { mapping, testPlan } from "./sync-world.ts";

/** A plan between two tables or more, as SQL. */
export interface Case {
  readonly old: string;
  readonly new: string;
  readonly forward: readonly MappingPlan[];
  readonly reverse?: readonly MappingPlan[];
  readonly rows?: number | undefined;
  readonly redact?: readonly string[];
  /** Of the new database, if it is not the usual one. */
  readonly encoding?: string;
}

let shared: Promise<DatabasePair> | undefined;
let schemas = 0;

/** One pair of databases, a schema of its own for each plan. */
export async function world(given: Case): Promise<Plan> {
  shared ??= createDatabasePair();
  const { oldUrl, newUrl: usual } = await shared;
  const newUrl = given.encoding === undefined ? usual : await encoded(usual, given.encoding);
  schemas += 1;
  const [oldSchema, newSchema] = [`Old ${schemas}`, `new_${schemas}`];
  const prepare = (url: string, schema: string, sql: string) =>
    withClient(url, (client) =>
      client.query(`create schema "${schema}"; set search_path = "${schema}"; ${sql}`),
    );
  await prepare(oldUrl, oldSchema, given.old);
  await prepare(newUrl, newSchema, given.new);
  const plan = testPlan({ oldUrl, newUrl, oldSchema, newSchema, ...given });
  return { ...plan, verify: { ...plan.verify, redact: given.redact ?? [] } };
}

async function encoded(beside: string, encoding: string): Promise<string> {
  const url = new URL(beside);
  const name = `${url.pathname.slice(1)}_${encoding.toLowerCase()}`;
  await withClient(beside, (client) =>
    client.query(
      `create database ${name} encoding '${encoding}' lc_collate 'C' lc_ctype 'C' template template0`,
    ),
  );
  url.pathname = `/${name}`;
  return url.toString();
}

/** What the doctor says of a plan; `rows`: how many it reads of each table. */
export async function examined(plan: Plan, rows: number | undefined = 100_000): Promise<Diagnosis> {
  const { directions } = await validatePlan(plan);
  return diagnose(plan, directions, { rows, statementTimeoutMs: 20_000 });
}

export const diagnosed = async (given: Case): Promise<Diagnosis> =>
  examined(await world(given), given.rows);

export const set = (columns: Record<string, string>) => new Map(Object.entries(columns));
/** A mapping of the way back. */
export const reverse = (
  target: string,
  from: string,
  rest: Parameters<typeof mapping>[2] = {},
) => ({
  ...mapping(target, from, rest),
  path: `back.${target}`,
});
