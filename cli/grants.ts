import { Option } from "commander";
import { describeDatabase } from "../config/describe.ts";
import type { MappingSet, Plan } from "../config/plan-types.ts";
import { type Side, SIDES } from "../config/words.ts";
import { type Grant, leastPrivileges } from "../store/postgres/grants.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";
import type { Command } from "./command.ts";

interface Options {
  readonly role: string;
}

export const grants: Command<Options> = {
  name: "grants",
  summary: "prints the least-privilege SQL for both databases",
  details: `Prints, for each database, the SQL that gives a role exactly what Crossfade needs and nothing more, each statement with
its reason. Reads both catalogs; changes nothing. Run the SQL as a superuser, then put the role into the plan's URLs.`,
  examples: ["crossfade grants", "crossfade grants --role migrator | psql …"],
  options: [
    new Option("--role <name>", "the role Crossfade is to log in with").default("crossfade"),
  ],
  logLevel: "warn",
  async run({ plan }, { role }) {
    const sides = {
      old: await grantsOf(plan, "old", role),
      new: await grantsOf(plan, "new", role),
    };
    return {
      json: {
        ok: true,
        role,
        ...Object.fromEntries(
          SIDES.map((side) => [
            side,
            { database: describeDatabase(plan[side].database), grants: sides[side] },
          ]),
        ),
      },
      text: SIDES.map((side) => script(plan, side, sides[side])).join("\n\n"),
    };
  },
};

function script(plan: Plan, side: Side, list: readonly Grant[]): string {
  return [
    `-- ${side} database, ${describeDatabase(plan[side].database)}`,
    ...list.map(({ sql, why }) => `-- ${why}\n${sql};`),
  ].join("\n");
}

async function grantsOf(plan: Plan, side: Side, role: string): Promise<Grant[]> {
  const client = await openSession({
    url: plan[side].database,
    name: sideLabel(side),
    application: applicationName(plan.name, "grants", String(process.pid)),
    statementTimeoutMs: 30_000,
  });
  try {
    const { schema } = plan[side];
    return await leastPrivileges(client, {
      role,
      schema,
      tables: tablesOf(plan, side),
      feed: plan.feed,
      buildsIndexes: side === "new" && plan.backfill.defer.includes("indexes"),
    });
  } finally {
    await closeSession(client);
  }
}

/** Tables of a side that the plan names; undefined: all of them. */
function tablesOf(plan: Plan, side: Side): string[] | undefined {
  const [source, target] =
    side === "old" ? [plan.forward, plan.reverse] : [plan.reverse, plan.forward];
  if (source?.kind === "identity" || target?.kind === "identity") return undefined;
  return [...new Set([...read(source), ...(target?.mappings ?? []).map((made) => made.target)])];
}

function read(set: MappingSet | undefined): string[] {
  if (set?.kind !== "tables") return [];
  return set.mappings.flatMap(({ from }) => [from.table, ...from.also.keys()]);
}
