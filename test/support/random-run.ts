import pg from "pg";
import type { Direction } from "../../config/words.ts";
import { sourceOf, targetOf } from "../../config/words.ts";
import type { Random } from "../../examples/support/random.ts";
import { Passes } from "../../proxy/mirror/pass.ts";
import { planChunks } from "../../store/postgres/chunks.ts";
import { compareChunk } from "../../store/postgres/compare.ts";
import { type Engine, openEngine } from "../../store/postgres/engine.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { TriggerFeed } from "../../store/postgres/trigger-feed.ts";
import type { CuttableProxy } from "./cuttable-proxy.ts";
import { withClient } from "./databases.ts";
import { rowsSql, type Scenario } from "./random-scenario.ts";
import { installWorld, quiet, testPlan } from "./sync-world.ts";

export interface Place {
  readonly oldUrl: string;
  readonly newUrl: string;
  /** Lines to the same two servers that can be cut. */
  readonly lines: { readonly old: CuttableProxy; readonly new: CuttableProxy };
}

export interface RunOptions {
  readonly place: Place;
  readonly direction: Direction;
  readonly scenario: Scenario;
  readonly random: Random;
  readonly schema: string;
}

/** What a run leaves: each target table's rows beside those plain SQL makes of the source. */
export interface Outcome {
  readonly tables: readonly {
    readonly table: string;
    readonly found: readonly string[];
    readonly expected: readonly string[];
    readonly atLeast: boolean;
  }[];
  readonly differences: readonly unknown[];
  readonly quarantine: readonly unknown[];
  /** Times a mirror or a copier died and another took over. */
  readonly deaths: number;
}

const through = (url: string, line: CuttableProxy) => {
  const changed = new URL(url);
  changed.port = String(line.port);
  return changed.toString();
};

/** Runs a scenario: transactions, passes and chunks at once, with the syncing side dying at random moments. */
export async function runScenario(options: RunOptions): Promise<Outcome> {
  const { place, direction, scenario, random, schema } = options;
  const urls = { old: place.oldUrl, new: place.newUrl };
  const from = sourceOf(direction);
  const to = targetOf(direction);
  const schemas = { old: `${schema} "old`, new: `${schema} new` };
  for (const side of ["old", "new"] as const) {
    await withClient(urls[side], async (client) => {
      const name = client.escapeIdentifier(schemas[side]);
      await client.query(`drop schema if exists crossfade cascade; create schema ${name};
        set search_path = ${name}, public; ${side === from ? scenario.source : scenario.target}`);
    });
  }
  const world = (oldUrl: string, newUrl: string) =>
    testPlan({
      oldUrl,
      newUrl,
      oldSchema: schemas.old,
      newSchema: schemas.new,
      forward: scenario.mappings,
      reverse: scenario.mappings,
    });
  await installWorld(world(urls.old, urls.new), direction);
  const shaky = world(through(urls.old, place.lines.old), through(urls.new, place.lines.new));
  const open = () =>
    openEngine({ plan: shaky, direction, epoch: 1, role: "random", instance: "a" });
  const writer = await openSession({
    url: urls[from],
    name: "writer",
    application: "test app",
    searchPath: schemas[from],
  });
  const half = random.chance(0.7) ? scenario.transactions.length >> 1 : -1;
  const copied = Promise.withResolvers<void>();
  let writing = true;
  let deaths = 0;
  await writer.query(`set search_path = ${writer.escapeIdentifier(schemas[from])}, public`);
  const write = async () => {
    for (const [i, statements] of scenario.transactions.entries()) {
      // A copy that comes last would hide what the mirror got wrong.
      if (i === half) await copied.promise;
      for (const sql of statements) {
        const failed = await writer.query(sql).then(
          () => undefined,
          (error: unknown) => error,
        );
        if (failed === undefined) continue;
        await writer.query("rollback");
        // What the source refuses never happened; anything else is a mistake in the scenario.
        if (!(failed instanceof pg.DatabaseError) || !/^(23|40|22)/.test(failed.code ?? ""))
          throw new Error(`the scenario does not run: ${sql}`, { cause: failed });
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, random.integer(8)));
    }
    writing = false;
  };
  /** Works until everything is written and done; whoever dies is followed by another. */
  const survive = async (work: (engine: Engine) => Promise<void>) => {
    for (let attempt = 0; ; attempt += 1) {
      let engine: Engine | undefined;
      try {
        engine = await open();
        await work(engine);
        return;
      } catch (error) {
        if (attempt > 60 || !isDeath(error)) throw error;
        deaths += 1;
        await new Promise((resolve) => setTimeout(resolve, 5));
      } finally {
        await engine?.close();
      }
    }
  };
  const mirror = async (engine: Engine) => {
    const passes = new Passes(engine.context, new TriggerFeed(from, engine.context.source), quiet);
    await passes.start();
    for (;;) {
      const last = !writing;
      if ((await passes.run()) === undefined) {
        if (last) return;
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  };
  const copy = async ({ context }: Engine) => {
    for (const driver of context.compiled.drivers) {
      const size = 1 + random.integer(6);
      const { version, chunks } = await planChunks(
        context.compiled,
        driver,
        context.source,
        context.target,
        size,
      );
      for (const chunk of chunks) await syncChunk(context, driver, { ...chunk, version });
    }
  };
  const disturb = async () => {
    for (let times = random.integer(4); times > 0; times -= 1) {
      await new Promise((resolve) => setTimeout(resolve, random.integer(60)));
      if (random.chance(0.5))
        place.lines[random.chance(0.5) ? "old" : "new"].cutAfter(random.integer(4_000));
      else
        await withClient(urls[random.chance(0.5) ? from : to], (client) =>
          client.query(
            `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'crossfade random%'`,
          ),
        );
    }
  };
  const close = async () => {
    writing = false;
    await closeSession(writer);
  };
  try {
    await Promise.all([write(), survive(mirror), survive(copy).finally(copied.resolve), disturb()]);
    for (const line of [place.lines.old, place.lines.new]) line.mend();
    // Once more in peace, for what a late cut left.
    await survive(mirror);
    return { ...(await outcome(options, schemas, open)), deaths };
  } finally {
    await close();
  }
}

/** A connection that broke, a session that was ended: what killing a process looks like from the server. */
function isDeath(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof pg.DatabaseError) return /^(57P|08)/.test(error.code ?? "");
  return /ECONN|EPIPE|terminated|closed|not queryable|Premature close|unreachable|timeout/i.test(
    `${error.message} ${"code" in error ? String(error.code) : ""}`,
  );
}

async function outcome(
  { place, direction, scenario }: RunOptions,
  schemas: Readonly<Record<"old" | "new", string>>,
  open: () => Promise<Engine>,
): Promise<Omit<Outcome, "deaths">> {
  const read = async (side: "old" | "new", sql: string) => {
    const url = side === "old" ? place.oldUrl : place.newUrl;
    const client = await openSession({
      url,
      name: side,
      application: "test",
      searchPath: schemas[side],
    });
    try {
      await client.query(`set search_path = ${client.escapeIdentifier(schemas[side])}, public`);
      const { rows } = await client.query({ text: sql, rowMode: "array" });
      return rows.map((row) => JSON.stringify(row)).toSorted();
    } finally {
      await closeSession(client);
    }
  };
  const tables = [];
  for (const one of scenario.expected) {
    tables.push({
      table: one.table,
      atLeast: one.atLeast,
      found: await read(targetOf(direction), rowsSql(schemas[targetOf(direction)], one)),
      expected: await read(sourceOf(direction), one.select),
    });
  }
  const engine = await open();
  try {
    const differences = [];
    for (const driver of engine.context.compiled.drivers) {
      const range = { lo: null, hi: null };
      const compared = await compareChunk(engine.context, driver, range, () => true);
      differences.push(...compared.differences);
    }
    const { rows } = await engine.context.target.query("select * from crossfade.quarantine");
    return { tables, differences, quarantine: rows };
  } finally {
    await engine.close();
  }
}
