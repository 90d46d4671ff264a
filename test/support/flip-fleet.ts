import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import pg from "pg";
import { expect, onTestFinished } from "vitest";
import { loadPlan } from "../../config/load.ts";
import type { Plan } from "../../config/plan-types.ts";
import { SIDES, directionFrom } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import { freePort } from "../../examples/support/free-port.ts";
import { closeControlStore, openControlStore } from "../../store/control/open.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { guardIsClosed } from "../../store/postgres/guard.ts";
import { readState } from "../../store/postgres/state.ts";
import { examine } from "../../switchover/flip-decide.ts";
import { CliProcess } from "./cli.ts";
import { CuttableProxy } from "./cuttable-proxy.ts";
import { createDatabasePair, withClient } from "./databases.ts";
import { writePlanFile } from "./plan-files.ts";
import { startApp } from "./sidecar.ts";

/** One process of the fleet, its TCP lines to both databases, and how it is started. */
export class FleetProcess {
  readonly #args: readonly string[];
  readonly lines: readonly CuttableProxy[];
  #process: CliProcess | undefined;
  #died = false;

  constructor(args: readonly string[], lines: readonly CuttableProxy[]) {
    this.#args = args;
    this.lines = lines;
  }

  get died(): boolean {
    return this.#died;
  }

  /** `failpoint`: where it kills itself. Resolves when it works. */
  async start(failpoint?: string): Promise<void> {
    const env: Record<string, string> =
      failpoint === undefined ? {} : { CROSSFADE_FAILPOINT: `${failpoint}:kill` };
    const started = new CliProcess(this.#args, env);
    this.#process = started;
    this.#died = false;
    void started.ended.then(() => {
      if (this.#process === started) this.#died = true;
    });
    await expect
      .poll(() => this.#died || started.stdout.includes("}"), { timeout: 60_000, interval: 20 })
      .toBe(true);
  }

  async kill(): Promise<void> {
    this.#process?.child.kill("SIGKILL");
    await this.#process?.ended;
  }
}

/** Three sidecars, two controllers and a mirror, each a process with lines of its own; an app on each side. */
export interface FlipFleet {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly sidecars: readonly FleetProcess[];
  readonly controllers: readonly FleetProcess[];
  readonly mirror: FleetProcess;
  readonly urls: readonly string[];
  /** What bypasses the sidecars goes here. */
  readonly apps: readonly string[];
}

export async function openFlipFleet(): Promise<FlipFleet> {
  const { oldUrl, newUrl } = await createDatabasePair();
  const urls: Record<Side, string> = { old: oldUrl, new: newUrl };
  for (const side of SIDES)
    await withClient(urls[side], (client) =>
      client.query("create table notes (id int primary key, n int not null)"),
    );
  const content = {
    name: "fleet",
    forward: { notes: { from: "notes" } },
    reverse: { notes: { from: "notes" } },
    operate: { listen: "127.0.0.1:0" },
    // Nobody reads. A hold that a loaded machine can keep.
    canary: { steps: ["50%"], stay: "1ms" },
    gates: { canary: { samples: 0 } },
    flip: { hold: "3s" },
  };
  const apps = { old: await startNotesApp(oldUrl), new: await startNotesApp(newUrl) };
  const sides = (databases: Record<Side, string>) => ({
    old: { database: databases.old, app: apps.old },
    new: { database: databases.new, app: apps.new },
  });
  const listens: string[] = [];
  const member = async (role: string): Promise<FleetProcess> => {
    const lines = { old: await openLine(oldUrl), new: await openLine(newUrl) };
    const listen = `127.0.0.1:${await freePort()}`;
    if (role === "proxy") listens.push(`http://${listen}`);
    const state = mkdtempSync(join(tmpdir(), "crossfade-fleet-"));
    const databases = { old: lines.old.url, new: lines.new.url };
    const file = writePlanFile({ ...content, ...sides(databases), proxy: { listen, state } });
    return new FleetProcess([role, "--plan", file, "--json"], [lines.old.line, lines.new.line]);
  };
  const members = async (role: string, count: number) => {
    const made: FleetProcess[] = [];
    for (let n = 0; n < count; n += 1) made.push(await member(role));
    return made;
  };
  const controllers = await members("control", 2);
  const sidecars = await members("proxy", 3);
  const mirror = await member("mirror");
  const plan = loadPlan(writePlanFile({ ...content, ...sides(urls) }));
  const store = openControlStore(plan, { role: "test", instance: "fleet" });
  onTestFinished(() => closeControlStore(store));
  return { plan, store, sidecars, controllers, mirror, urls: listens, apps: [apps.old, apps.new] };
}

async function openLine(database: string): Promise<{ line: CuttableProxy; url: string }> {
  const url = new URL(database);
  const line = await CuttableProxy.open({ host: url.hostname, port: Number(url.port) });
  url.port = String(line.port);
  return { line, url: url.toString() };
}

/** An app of one side: PUT /N writes row N, and answers 409 with the SQLSTATE when the database refuses. */
async function startNotesApp(databaseUrl: string): Promise<string> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 6 });
  pool.on("error", () => {});
  onTestFinished(() => pool.end());
  const app = await startApp("notes", async (request, response) => {
    const body = Number(await text(request));
    const row = [Number(request.url?.slice(1)), body];
    await pool
      .query("insert into notes values ($1, $2) on conflict (id) do update set n = $2", row)
      .then(
        () => response.writeHead(201).end("ok"),
        (error: pg.DatabaseError) =>
          response.writeHead(409, { "crossfade-applied": "no" }).end(error.code),
      );
  });
  return app.url;
}

/** Every row of a side. */
export async function notesOf(plan: Plan, side: Side): Promise<Map<number, number>> {
  return withClient(plan[side].database, readNotes);
}

async function readNotes(client: pg.Client): Promise<Map<number, number>> {
  const { rows } = await client.query<{ id: number; n: number }>(
    "select id, n from notes order by id",
  );
  return new Map(rows.map(({ id, n }) => [id, n]));
}

/** Every row of the side that takes writes, if it is the authority before and after they are read. */
export async function notesOfAuthority(
  plan: Plan,
  side: Side,
): Promise<Map<number, number> | undefined> {
  return withClient(plan[side].database, async (client) => {
    const epoch = async () => {
      const { direction, epoch: now } = await readState(client, side);
      const takesWrites = direction === directionFrom(side) && !(await guardIsClosed(client, side));
      return takesWrites ? now : undefined;
    };
    const before = await epoch();
    const notes = await readNotes(client);
    return before !== undefined && before === (await epoch()) ? notes : undefined;
  });
}

/** Whether both sides say the same, no attempt runs, and one of them takes writes. */
export async function guardStates(plan: Plan): Promise<{ settled: boolean; facts: unknown }> {
  const [old, next] = await Promise.all(
    SIDES.map((side) =>
      withClient(plan[side].database, async (client) => ({
        row: await readState(client, side),
        closed: await guardIsClosed(client, side),
      })),
    ),
  );
  if (old === undefined || next === undefined) throw new Error("two sides");
  const finding = examine({ old, new: next });
  return { settled: finding.kind === "settled", facts: { old, next } };
}
