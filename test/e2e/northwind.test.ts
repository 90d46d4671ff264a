import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { expandEnvironment } from "../../config/environment.ts";
import { loadPlan } from "../../config/load.ts";
import type { MappingSet, Plan } from "../../config/plan-types.ts";
import type { Phase } from "../../config/words.ts";
import { Cli } from "../../examples/demo/cli.ts";
import type { RunningProcess } from "../../examples/demo/processes.ts";
import { createWorkspace, type Workspace } from "../../examples/demo/workspace.ts";
import { freePort } from "../../examples/support/free-port.ts";
import type { Receipt } from "../../store/control/history.ts";
import { copyRows } from "../support/copy-schema.ts";
import { createDatabasePair, createSingleDatabase, withClient } from "../support/databases.ts";
import { NorthwindWriters } from "../support/northwind-writers.ts";
import { PlainMapping } from "../support/plain-mapping.ts";
import { writePlanFileIn } from "../support/plan-files.ts";

/*
 * The real Northwind data crosses with real processes, under writers that know nothing of Crossfade: they write plain SQL
 * to whichever side takes writes. After each move of the authority every row of both sides is compared, by `crossfade
 * verify` and, independently of it, by the mappings as plain INSERT … SELECT.
 */
describe("northwind", () => {
  const never = new AbortController().signal;
  let urls: { old: string; new: string };
  let sql: { old: string; new: string };
  let workspace: Workspace;
  let plan: Plan;
  let app: Server;
  let cli: Cli;
  let up: RunningProcess;
  let writers: NorthwindWriters;
  let reads: Reads;

  beforeAll(async () => {
    const { oldUrl, newUrl } = await createDatabasePair();
    urls = { old: oldUrl, new: newUrl };
    sql = {
      old: await readFile("examples/northwind/northwind.sql", "utf8"),
      new: await readFile("examples/northwind/new-schema.sql", "utf8"),
    };
    await withClient(oldUrl, (client) => client.query(sql.old));
    await withClient(newUrl, (client) => client.query(sql.new));
    app = createServer((request, response) => response.end(`${request.method}`));
    await new Promise<void>((resolve) => app.listen(0, "127.0.0.1", resolve));
    workspace = createWorkspace();
    const file = await writePlan();
    plan = loadPlan(file, {});
    cli = new Cli({ plan: file, logs: workspace.logs, signal: never });
    up = cli.up();
    await up.until(() => up.stdout.endsWith("}\n"), never);
    const { host, port } = plan.proxy.listen;
    reads = new Reads(`http://${host}:${port}/`);
    writers = new NorthwindWriters(urls, 3, 1);
  });

  afterAll(async () => {
    await writers?.stop();
    await reads?.stop();
    await up?.stop(20_000);
    app?.close();
    workspace?.remove();
  });

  /** The example's own plan; both apps are one stub, canary is as short as it can be, and nothing goes back by itself. */
  async function writePlan(): Promise<string> {
    const stub = `http://127.0.0.1:${(app.address() as AddressInfo).port}`;
    const environment = {
      OLD_DATABASE_URL: urls.old,
      NEW_DATABASE_URL: urls.new,
      OLD_APP_URL: stub,
      NEW_APP_URL: stub,
      PROXY_LISTEN: `127.0.0.1:${await freePort()}`,
      OPERATE_LISTEN: `127.0.0.1:${await freePort()}`,
    };
    const template = parse(await readFile("examples/northwind/crossfade.yaml", "utf8"), {
      merge: true,
    }) as object;
    const content = {
      ...(expandEnvironment(template, environment, []) as object),
      canary: { steps: ["50%"], stay: "1ms" },
      // On a machine that does more beside, a slow answer or a late mirror would end the walk.
      gates: { shadow: { samples: 1 }, canary: { samples: 1, p99: "1000x" } },
      rollback_on: "off",
    };
    return writePlanFileIn(workspace.folder, content);
  }

  async function go(command: "advance" | "rollback", to: Phase): Promise<Receipt | null> {
    const result = await cli.run<{ phase: Phase; receipt: Receipt | null }>(
      command,
      "--to",
      to,
      "--wait",
    );
    expect(result.phase).toBe(to);
    return result.receipt;
  }

  /** Resolves when the writers have committed `more` transactions. */
  async function writeOn(more: number): Promise<void> {
    const goal = writers.counts.committed + more;
    await expect
      .poll(() => writers.errors.length > 0 || writers.counts.committed >= goal, {
        timeout: 30_000,
      })
      .toBe(true);
    expect(writers.errors).toEqual([]);
  }

  /** Every row of both sides, twice: as the product sees it, and by the mappings' plain meaning. */
  async function compareAll(): Promise<void> {
    await writers.pause();
    const { run } = await cli.run<{ run: Record<string, unknown> }>("verify");
    expect(run).toMatchObject({ state: "clean", missing: 0, extra: 0, different: 0 });
    expect(run["rows"]).toBeGreaterThan(3_000);
    await withClient(await createSingleDatabase(), (client) => compareByMappings(client));
    writers.resume();
  }

  async function compareByMappings(client: pg.Client): Promise<void> {
    await copyRows(client, "old", { url: urls.old, sql: sql.old });
    await copyRows(client, "new", { url: urls.new, sql: sql.new });
    await emptySchema(client, "made_old", sql.old);
    await emptySchema(client, "made_new", sql.new);
    const mapping = new PlainMapping(client);
    await mapping.apply({ set: plan.forward, source: "old", target: "made_new" });
    await mapping.apply({ set: reverseOf(plan), source: "new", target: "made_old" });
    for (const schema of ["old", "new"])
      expect(await countRows(client, schema)).toBeGreaterThan(3_000);
    expect(await mapping.differences("new", "made_new")).toEqual({});
    expect(await mapping.differences("old", "made_old")).toEqual({});
  }

  test("crosses to write-new, back, and forward again to done, under stray writers", async () => {
    await writeOn(50);
    for (const phase of [
      "dual-write",
      "backfill",
      "verify",
      "shadow",
      "canary",
      "read-new",
    ] as const) {
      await go("advance", phase);
      await writeOn(30);
    }
    await compareAll();

    const forward = await go("advance", "write-new");
    expect(forward).toMatchObject({ kind: "flip", ok: true, from: "old", to: "new", failed: 0 });
    await writeOn(200);
    await compareAll();

    const back = await go("rollback", "read-new");
    expect(back).toMatchObject({ kind: "rollback", ok: true, from: "new", to: "old", failed: 0 });
    await writeOn(200);
    await compareAll();

    await go("advance", "write-new");
    await writeOn(100);
    await compareAll();
    await go("advance", "done");
    // Not that all of old's tables are missing.
    await expect(cli.run("check")).rejects.toMatchObject({
      output: expect.stringContaining("the migration is done") as string,
    });
    await writeOn(50);

    // Each move of the authority refused every writer once.
    expect(writers.counts.refused).toBeGreaterThanOrEqual(9);
    expect(writers.counts.rolledBack).toBeGreaterThan(20);
    await reads.stop();
    expect(reads.failures).toEqual([]);
    expect(reads.answered).toBeGreaterThan(50);
  });
});

/** Clients of the service, enough for both sides of a canary: some reads a second, none of which may fail. */
class Reads {
  answered = 0;
  readonly failures: unknown[] = [];
  readonly #run: Promise<void>;
  #stopped = false;

  constructor(url: string) {
    this.#run = this.#read(url);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#run;
  }

  async #read(url: string): Promise<void> {
    for (let read = 0; !this.#stopped; read += 1) {
      try {
        const authorization = `Bearer client-${read % 20}`;
        const response = await fetch(url, { headers: { authorization } });
        const text = await response.text();
        if (response.ok && text === "GET") this.answered += 1;
        else this.failures.push(`${response.status} ${text}`);
      } catch (error) {
        this.failures.push(error);
      }
      await sleep(50);
    }
  }
}

/** All rows of all tables of a schema. */
async function countRows(client: pg.Client, schema: string): Promise<number> {
  const { rows } = await client.query<{ count: string }>(
    `select sum((xpath('/row/c/text()', query_to_xml(format('select count(*) as c from %I.%I', $1::text, relname), false, true, '')))[1]::text::int)::text as count
     from pg_class where relnamespace = $1::regnamespace and relkind = 'r'`,
    [schema],
  );
  return Number(rows[0]?.count);
}

async function emptySchema(client: pg.Client, schema: string, sql: string): Promise<void> {
  await client.query(`create schema ${schema}; set search_path = ${schema}`);
  await client.query(sql.replaceAll(/^INSERT INTO .*$/gm, ""));
  await client.query("reset search_path");
}

function reverseOf({ reverse }: Plan): MappingSet {
  if (reverse === undefined) throw new Error("the example has no way back");
  return reverse;
}
