import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import type { CompiledDirection } from "./mapping.ts";
import { run } from "./statement.ts";

/** A table as its side was installed with it: what its rows in the log are known by, and what they hold. */
interface InstalledTable {
  readonly number: number;
  readonly columns: readonly string[];
}

/** The tables that log on a side, by name; empty before it is installed. */
export async function installedTables(
  client: pg.ClientBase,
  side: Side,
): Promise<ReadonlyMap<string, InstalledTable>> {
  if (!(await isThere(client, "tables"))) return new Map();
  const rows = await run(
    client,
    "select name, number::text, to_json(columns)::text from crossfade.tables where side = $1",
    [side],
  );
  return new Map(
    rows.map(([name, number, columns]) => [
      name ?? "",
      { number: Number(number), columns: JSON.parse(columns ?? "[]") as string[] },
    ]),
  );
}

/** What the plan follows and the source's feed does not log, or not with what the plan needs of it now. Empty before the feed is installed. */
export async function unloggedTables(
  client: pg.ClientBase,
  { source: side, logged }: CompiledDirection,
): Promise<string[]> {
  if (!(await isThere(client, "feed"))) return [];
  const [feed] = await run(client, "select 1 from crossfade.feed where side = $1", [side]);
  if (feed === undefined) return [];
  const installed = await installedTables(client, side);
  return logged.flatMap(({ name, columns }) => {
    const was = installed.get(name)?.columns;
    if (was === undefined) return [`table ${name} is not followed`];
    const is = columns.map((column) => column.name);
    return was.join("\n") === is.join("\n")
      ? []
      : [`of table ${name} the feed knows ${was.join(", ")}, and the plan needs ${is.join(", ")}`];
  });
}

/** Throws REFUSED where there is any: the plan was edited while the migration runs, and changes would go by unseen. */
export async function refuseUnlogged(
  client: pg.ClientBase,
  compiled: CompiledDirection,
): Promise<void> {
  const problems = await unloggedTables(client, compiled);
  if (problems.length === 0) return;
  throw new CrossfadeError(
    "REFUSED",
    `the plan is not the one that the ${compiled.source} database was installed with: ${problems.join("; ")}`,
    {
      hint: "Put the plan back, or have it taken as it is now: `crossfade resume` installs what is missing, and every table is copied and verified again.",
    },
  );
}

async function isThere(client: pg.ClientBase, table: "tables" | "feed"): Promise<boolean> {
  const [row] = await run(client, "select to_regclass($1)::text", [`crossfade.${table}`]);
  return row?.[0] != null;
}
