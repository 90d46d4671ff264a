import type pg from "pg";
import { KEY_SQL } from "./catalog.ts";
import { batchStatement, prepareForBatch, run, runPrepared } from "./statement.ts";

/** What of a table must not change while a migration runs, as the catalog of its server has it at one moment. */
export interface Shape {
  readonly oid: string;
  readonly columns: readonly ShapeColumn[];
  readonly key: readonly string[];
  /** The table itself first by depth, then every partition and inheritance child. */
  readonly members: readonly ShapeMember[];
}

interface ShapeColumn {
  /** A column that was dropped and added again has another number. */
  readonly num: number;
  readonly name: string;
  /** Type, modifier, collation, generated, identity: as ids, because names follow the search path. */
  readonly kind: string;
  /** For messages. */
  readonly type: string;
  /** The transaction that last changed the column's definition. */
  readonly xmin: string;
}

interface ShapeMember {
  readonly oid: string;
  readonly name: string;
  /** Another file: the rows were written anew, or truncated. */
  readonly file: string;
  /** What our feed needs here, our triggers and its place in our publication: name → what it is. */
  readonly log: Readonly<Record<string, { readonly oid: string; readonly enabled: string }>>;
  /** `pg_class.relreplident`: which values before a change are in the WAL. */
  readonly identity: string;
  /** Guard triggers are there, and all of them `ENABLE ALWAYS`. */
  readonly armed: boolean;
}

/** Whether the side is read from or written to: it decides which of our triggers matter. */
export type ShapeRole = "source" | "target";

const SHAPES_SQL = `
with recursive mapped as (
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relname = any($2::text[]) and c.relkind in ('r', 'p')
), tree as (
  select oid as root, oid, 0 as depth from mapped
  union
  select t.root, i.inhrelid, t.depth + 1 from tree t join pg_inherits i on i.inhparent = t.oid
)
select c.relname, json_build_object(
  'oid', c.oid::text,
  'columns', (
    select json_agg(json_build_object(
      'num', a.attnum, 'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'xmin', a.xmin::text,
      'kind', concat_ws(' ', a.atttypid, a.atttypmod, a.attcollation, a.attgenerated, a.attidentity)) order by a.attnum)
    from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'key', ${KEY_SQL},
  'members', (
    select json_agg(json_build_object(
      'oid', m.oid::text, 'name', m.relname, 'file', m.relfilenode::text,
      'identity', m.relreplident,
      'log', (select coalesce(json_object_agg(f.name, json_build_object('oid', f.oid::text, 'enabled', f.enabled)), '{}') from (
                select 'trigger ' || g.tgname, g.oid, g.tgenabled
                from pg_trigger g where g.tgrelid = m.oid and g.tgname like 'crossfade\\_log%'
                union all select 'publication ' || p.pubname, r.oid, 'A'
                from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                where r.prrelid = m.oid and p.pubname in ('crossfade_old', 'crossfade_new')) f(name, oid, enabled)),
      'armed', (select coalesce(bool_and(g.tgenabled = 'A'), false)
                from pg_trigger g where g.tgrelid = m.oid and g.tgname like 'crossfade\\_guard%')) order by t.depth, m.relname)
    from tree t join pg_class m on m.oid = t.oid where t.root = c.oid))::text
from mapped join pg_class c on c.oid = mapped.oid`;

/** The shapes of tables as they are now; a table that is not there is absent. One statement: one consistent picture. */
export async function readShapes(
  client: pg.ClientBase,
  schema: string,
  names: readonly string[],
): Promise<Map<string, Shape>> {
  const rows = await run(client, SHAPES_SQL, [schema, names]);
  return new Map(rows.map(([name, json]) => [name ?? "", JSON.parse(json ?? "") as Shape]));
}

/**
 * Changes whenever anything in the shapes of these relations may have changed, and now and then without (a GRANT, an
 * index): whoever sees another token looks at the shapes. ANALYZE and VACUUM change catalogs in place, so it stays.
 */
export async function readToken(client: pg.ClientBase, oids: readonly string[]): Promise<string> {
  const [row] = await runPrepared(client, tokenSql(oids), []);
  return row?.[0] ?? "";
}

/** The same as a statement for `runBatch`. */
export async function prepareToken(
  client: pg.ClientBase,
  oids: readonly string[],
): Promise<string> {
  return `execute ${await prepareForBatch(client, tokenSql(oids))}`;
}

/** SQLSTATE of a guard that failed: a setting that does not exist. No refusal of a row has it. */
export const GUARD_STATE = "42704";

/** A statement for `runBatch` that fails unless the token is this one. */
export async function prepareGuard(
  client: pg.ClientBase,
  oids: readonly string[],
  token: string,
): Promise<string> {
  const sql = `select case when cf_t.token = $1::text then '' else current_setting('crossfade.tables_changed') end from (${tokenSql(oids)}) cf_t(token)`;
  return batchStatement(client, sql, [token]);
}

/**
 * The numbers stand in the text: as a parameter they would have it planned again each time, at four times the cost. A digest for
 * each catalog that no order of its rows changes: sorting 2,000 columns took half of the time.
 */
function tokenSql(oids: readonly string[]): string {
  const list = `'{${oids.map(Number).join(",")}}'::oid[]`;
  const digest = (xmin: string, row: string) => `bit_xor(hashtextextended(${xmin}::text, ${row}))`;
  return `
select concat_ws('|',
  (select ${digest("c.xmin", "c.oid::int8")} from pg_class c where c.oid = any(${list})),
  (select ${digest("a.xmin", "a.attrelid::int8 * 4096 + a.attnum")} from pg_attribute a where a.attrelid = any(${list}) and a.attnum > 0),
  (select ${digest("g.xmin", "g.oid::int8")} from pg_trigger g where g.tgrelid = any(${list})),
  (select ${digest("x.xmin", "x.indexrelid::int8")} from pg_index x where x.indrelid = any(${list})),
  (select ${digest("r.xmin", "r.oid::int8")} from pg_publication_rel r where r.prrelid = any(${list})),
  (select ${digest("i.inhrelid", "i.inhparent::int8")} from pg_inherits i where i.inhparent = any(${list})))`;
}

/**
 * What changed so that mirrored rows may be wrong from here on, in words; empty when nothing did. TRUNCATE is in the
 * log; VACUUM FULL, CLUSTER, indexes, defaults and grants change no row.
 */
export function shapeChanges(before: Shape, now: Shape | undefined, role: ShapeRole): string[] {
  if (now === undefined) return ["it is not there any more"];
  if (now.oid !== before.oid) return ["it was dropped and made anew"];
  return [
    ...columnChanges(before, now),
    ...(before.key.join() === now.key.join()
      ? []
      : [`its key was (${before.key.join(", ")}) and is (${now.key.join(", ")})`]),
    ...memberChanges(before, now),
    ...(role === "source" ? logChanges(before, now) : guardChanges(before, now)),
  ];
}

function columnChanges(before: Shape, now: Shape): string[] {
  const known = new Map(before.columns.map((column) => [column.num, column]));
  const left = new Set(now.columns.map((column) => column.num));
  const rewritten = fileOf(before) !== fileOf(now);
  const changes = before.columns
    .filter((column) => !left.has(column.num))
    .map((column) => `column ${column.name} was dropped`);
  for (const column of now.columns) {
    const was = known.get(column.num);
    if (was === undefined) changes.push(`column ${column.name} was added`);
    else if (was.name !== column.name) changes.push(`column ${was.name} is now ${column.name}`);
    else if (was.kind !== column.kind)
      changes.push(`column ${column.name} was ${was.type} and is ${column.type}`);
    // `alter column … type … using` may change values and keep the type; no row event tells of it.
    else if (rewritten && was.xmin !== column.xmin)
      changes.push(`column ${column.name} was rewritten`);
  }
  return changes;
}

function fileOf(shape: Shape): string {
  return shape.members.map((member) => `${member.oid}:${member.file}`).join();
}

function memberChanges(before: Shape, now: Shape): string[] {
  const names = (shape: Shape) => new Map(shape.members.map(({ oid, name }) => [oid, name]));
  const [was, is] = [names(before), names(now)];
  return [
    ...[...is].filter(([oid]) => !was.has(oid)).map(([, name]) => `partition ${name} was added`),
    ...[...was].filter(([oid]) => !is.has(oid)).map(([, name]) => `partition ${name} was removed`),
  ];
}

/** Something of the feed that was there and is not, or not always enabled: writes may have gone unseen. */
function logChanges(before: Shape, now: Shape): string[] {
  const members = new Map(now.members.map((member) => [member.oid, member]));
  const identities = new Map(before.members.map(({ oid, identity }) => [oid, identity]));
  return before.members.flatMap(({ oid, name, log }) =>
    Object.entries(log)
      .filter(([, was]) => was.enabled === "A")
      .flatMap(([what, was]) => {
        const member = members.get(oid);
        if (member === undefined) return [];
        const is = member.log[what];
        if (is === undefined || is.oid !== was.oid) return [`${what} on ${name} was dropped`];
        if (is.enabled !== "A") return [`${what} on ${name} was disabled`];
        return what.startsWith("publication") && identities.get(oid) !== member.identity
          ? [`the replica identity of ${name} was changed`]
          : [];
      }),
  );
}

/** The follower's guard is armed as long as it follows. */
function guardChanges(before: Shape, now: Shape): string[] {
  const members = new Map(now.members.map((member) => [member.oid, member]));
  return before.members
    .filter(({ oid, armed }) => armed && members.get(oid)?.armed === false)
    .map(({ name }) => `the guard on ${name} was dropped or disabled`);
}
