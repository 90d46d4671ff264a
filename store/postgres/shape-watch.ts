import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import {
  prepareGuard,
  prepareToken,
  readShapes,
  readToken,
  shapeChanges,
  type Shape,
  type ShapeRole,
} from "./shape.ts";
import { run, type TextRow } from "./statement.ts";

/** A side as a direction sees it. */
export interface ShapeSide {
  readonly client: pg.ClientBase;
  readonly side: Side;
  readonly schema: string;
  readonly role: ShapeRole;
}

/** The shapes that the migration runs on, as they are kept, by table. */
export type TakenShapes = ReadonlyMap<string, string>;

/**
 * Stops a sync before it commits what it made from tables that DDL has changed (DESIGN §2.3). The shapes a migration
 * runs on are kept in `crossfade.shape` of their side, so that a process that starts later knows them too; only
 * `resume` takes others.
 *
 * `check` belongs after the reads and before the commit: DDL that a read may have seen was committed before it, and so
 * is seen by a later look at the catalog; the tables the sync wrote stay locked against DDL until its commit.
 *
 * Mappings are resolved against the tables as they were then: a session that slept through DDL and a `resume` finds other shapes
 * than it began with, and ends with STALE.
 */
export class ShapeWatch {
  readonly #sides: readonly Watched[];

  private constructor(sides: readonly Watched[]) {
    this.#sides = sides;
  }

  /**
   * Takes the shapes of tables that are not known yet as they are; throws SHAPE_CHANGED for those that changed. `taken` is what
   * `refuseChanged` returned before anything was made of the catalogs.
   */
  static async open(
    sides: readonly (ShapeSide & {
      readonly tables: readonly string[];
      readonly taken: TakenShapes;
    })[],
  ): Promise<ShapeWatch> {
    const watched: Watched[] = [];
    for (const of of sides) {
      await rememberNew(of, of.tables);
      const taken = new Map([...(await readStored(of.client, of.side)), ...of.taken]);
      watched.push({ of, taken, oids: [], token: "" });
    }
    for (const side of watched) await look(side);
    return new ShapeWatch(watched);
  }

  /**
   * Throws SHAPE_CHANGED when DDL changed a mapped table of either side, or of one. Returns whether there was anything to
   * look at.
   */
  async check(role?: ShapeRole): Promise<boolean> {
    const sides = this.#sides.filter(({ of }) => role === undefined || of.role === role);
    return (await Promise.all(sides.map(check))).includes(true);
  }

  /** The same in two parts: a statement for `runBatch` on the side's session, and what to do with its answer. */
  async statement(role: ShapeRole): Promise<string> {
    const { of, oids } = this.#side(role);
    return prepareToken(of.client, oids);
  }

  async judge(role: ShapeRole, answer: readonly TextRow[] | undefined): Promise<void> {
    const side = this.#side(role);
    if (answer?.[0]?.[0] !== side.token) await look(side);
  }

  /** For the target: a statement that fails with `GUARD_STATE` when there is something to look at, and the commit after it. */
  async guard(): Promise<string> {
    const { of, oids, token } = this.#side("target");
    return prepareGuard(of.client, oids, token);
  }

  #side(role: ShapeRole): Watched {
    const side = this.#sides.find(({ of }) => of.role === role);
    if (side === undefined) throw new Error(`no ${role} is watched`);
    return side;
  }
}

interface Watched {
  readonly of: ShapeSide;
  taken: TakenShapes;
  oids: readonly string[];
  token: string;
}

async function check(side: Watched): Promise<boolean> {
  if ((await readToken(side.of.client, side.oids)) === side.token) return false;
  await look(side);
  return true;
}

async function look(side: Watched): Promise<void> {
  const { client, schema } = side.of;
  const stored = await readStored(client, side.of.side);
  const members = await readShapes(client, schema, [...stored.keys()]);
  side.oids = [...members.values()].flatMap((shape) => shape.members.map((member) => member.oid));
  // Before the shapes are judged: what changes in between changes the token too.
  const token = await readToken(client, side.oids);
  await refuseChanged(side.of);
  side.taken = goneOnWith(side, await readStored(client, side.of.side));
  side.token = token;
}

/** What is kept now, where it tells of the same tables as what this session began with. Else throws STALE. */
function goneOnWith({ of, taken }: Watched, stored: TakenShapes): TakenShapes {
  for (const [table, was] of taken) {
    const is = stored.get(table);
    const isSame = () =>
      is !== undefined &&
      shapeChanges(JSON.parse(was) as Shape, JSON.parse(is) as Shape, of.role).length === 0;
    if (is === was || isSame()) continue;
    throw new CrossfadeError(
      "STALE",
      `${of.side} database: table ${table} changed, and was taken as it is now by somebody else`,
    );
  }
  return stored;
}

/** Throws SHAPE_CHANGED if a table of a side is not what the migration runs on. Returns what that is. */
export async function refuseChanged(side: ShapeSide): Promise<TakenShapes> {
  const taken = await readStored(side.client, side.side);
  const changes = await changedShapes(side);
  if (changes.length === 0) return taken;
  throw new CrossfadeError(
    "SHAPE_CHANGED",
    `${side.side} database: ${changes.map(({ table, what }) => `table ${table} changed: ${what.join(", ")}`).join("; ")}. ` +
      "Nothing is mirrored, copied or compared until `crossfade resume`, which takes the tables as they are now and copies and verifies them again",
    { hint: "If the plan does not fit the tables any more, change it first." },
  );
}

/** The tables of a side that changed, and how. Changes that touch no row are taken over on the way. */
export async function changedShapes({
  client,
  side,
  schema,
  role,
}: ShapeSide): Promise<{ table: string; what: string[] }[]> {
  const stored = await readStored(client, side);
  const shapes = await readShapes(client, schema, [...stored.keys()]);
  const changed: { table: string; what: string[] }[] = [];
  for (const [table, text] of stored) {
    const shape = shapes.get(table);
    const what = shapeChanges(JSON.parse(text) as Shape, shape, role);
    if (what.length > 0) changed.push({ table, what });
    else if (JSON.stringify(shape) !== text) await takeOver(client, side, table, text, shape);
  }
  return changed;
}

async function takeOver(
  client: pg.ClientBase,
  side: Side,
  table: string,
  was: string,
  is: Shape | undefined,
): Promise<void> {
  // Only what was judged is replaced: somebody else may have taken over a newer one.
  await run(
    client,
    "update crossfade.shape set shape = $4 where side = $1 and name = $2 and shape = $3",
    [side, table, was, JSON.stringify(is)],
  );
}

async function rememberNew(
  { client, side, schema }: ShapeSide,
  tables: readonly string[],
): Promise<void> {
  const stored = await readStored(client, side);
  const unknown = tables.filter((table) => !stored.has(table));
  if (unknown.length === 0) return;
  for (const [table, shape] of await readShapes(client, schema, unknown)) {
    await run(
      client,
      "insert into crossfade.shape (side, name, shape) values ($1, $2, $3) on conflict do nothing",
      [side, table, JSON.stringify(shape)],
    );
  }
}

/** Forgets what the tables of a side were: whoever opens them next takes them as they are. */
export async function forgetShapes(client: pg.ClientBase, side: Side): Promise<void> {
  await run(client, "delete from crossfade.shape where side = $1", [side]);
}

async function readStored(client: pg.ClientBase, side: Side): Promise<TakenShapes> {
  const rows = await run(client, "select name, shape from crossfade.shape where side = $1", [side]);
  return new Map(rows.map(([name, shape]) => [name ?? "", shape ?? ""]));
}
