import pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import { withShortLock } from "./install-feed.ts";
import { ident, relation } from "./quote.ts";
import { ASIDE_SCHEMA } from "./removal.ts";
import { run } from "./statement.ts";

const PATIENCE_MS = 60_000;

/**
 * Drops the tables of a side that `done` moved aside, and their schema if nothing else lives in it. Only tables that still
 * carry the guard: what somebody else put there stays. All at once and without `cascade`: what still depends on one (a
 * view, a foreign key of another table) is an error, and nothing is dropped. Returns their names.
 */
export async function dropAside(client: pg.Client, side: Side): Promise<string[]> {
  const rows = await run(
    client,
    `select distinct c.relname from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where g.tgfoid = to_regprocedure($1) and not g.tgisinternal and n.nspname = $2 and not c.relispartition order by 1`,
    [`crossfade.guard_${side}()`, ASIDE_SCHEMA],
  );
  const names = rows.map(([name]) => name ?? "");
  if (names.length > 0) {
    const tables = names.map((name) => relation(ASIDE_SCHEMA, name)).join(", ");
    try {
      await withShortLock(client, [`drop table ${tables}`], {
        deadline: Date.now() + PATIENCE_MS,
      });
    } catch (error) {
      throw stillNeeded(error) ?? error;
    }
  }
  const [left] = await run(
    client,
    `select count(*)::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1`,
    [ASIDE_SCHEMA],
  );
  if (left?.[0] === "0") await run(client, `drop schema if exists ${ident(ASIDE_SCHEMA)}`);
  return names;
}

/** 2BP01: Postgres names what depends on a table in the detail of its error. */
function stillNeeded(error: unknown): CrossfadeError | undefined {
  if (!(error instanceof pg.DatabaseError) || error.code !== "2BP01") return undefined;
  const what = error.detail ?? error.message;
  return new CrossfadeError("REFUSED", `something still needs the old tables: ${what}`, {
    hint: "Nothing was dropped. Drop or move what is named, then ask again.",
    cause: error,
  });
}
