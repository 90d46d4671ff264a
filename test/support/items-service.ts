import { mkdtemp } from "node:fs/promises";
import http from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { onTestFinished } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import { itemsPlan } from "./controller-world.ts";
import { withClient } from "./databases.ts";
import { runRole } from "./proxy-world.ts";
import { startApp } from "./sidecar.ts";

/** The items of `controller-world` as a service: an app on each side, real sidecars in front, clients that do not pause. */

const COLUMN: Readonly<Record<Side, string>> = { old: "name", new: "title" };

/** What goes wrong in the new app, while a test says so. */
export interface Failing {
  reads: boolean;
  writes: boolean;
}

/** A plan with both apps running; the sidecars are another matter. */
export async function itemsServicePlan(
  change: Partial<Plan> = {},
): Promise<{ readonly plan: Plan; readonly failing: Failing }> {
  const bare = await itemsPlan(change);
  const failing: Failing = { reads: false, writes: false };
  const state = await mkdtemp(join(tmpdir(), "crossfade-items-"));
  const app = async (side: Side, broken?: Failing) =>
    (await startItemsApp(bare[side].database, COLUMN[side], broken)).url;
  const plan: Plan = {
    ...bare,
    old: { ...bare.old, app: await app("old") },
    new: { ...bare.new, app: await app("new", failing) },
    proxy: { ...bare.proxy, client: [{ by: "header", name: "authorization" }], state },
  };
  return { plan, failing };
}

/** A real sidecar in front of both apps. */
export async function startItemsSidecar(plan: Plan): Promise<string> {
  return (await runRole(plan)).url;
}

async function startItemsApp(database: string, column: string, failing?: Failing) {
  const pool = new pg.Pool({ connectionString: database, max: 8 });
  pool.on("error", () => {});
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const body: Buffer[] = [];
    for await (const part of request) body.push(part as Buffer);
    const id = Number(request.url?.split("/").at(-1));
    const reads = request.method === "GET";
    if (failing?.[reads ? "reads" : "writes"] === true) {
      response.writeHead(500).end("broken");
      return;
    }
    if (reads) {
      const { rows } = await pool.query(`select ${column} as v from items where id = $1`, [id]);
      response.writeHead(rows.length === 0 ? 404 : 200).end((rows[0] as { v: string })?.v);
      return;
    }
    if (request.method === "DELETE") await pool.query("delete from items where id = $1", [id]);
    else
      await pool.query(
        `insert into items (id, ${column}) values ($1, $2) on conflict (id) do update set ${column} = $2`,
        [id, Buffer.concat(body).toString()],
      );
    response.end("ok");
  };
  const app = await startApp("items", (request, response) =>
    answer(request, response).catch((error: unknown) =>
      response.writeHead(500).end((error as Error).message),
    ),
  );
  onTestFinished(() => pool.end());
  return app;
}

/** Between two writes of a client: the machine has a migration to do besides. */
const PAUSE_MS = 20;

/** Clients of the service. Each has rows of its own, so that what every one of them must hold is known. */
export class ItemsClients {
  /** What was acknowledged last: a value, or undefined for a row that was deleted. */
  readonly acknowledged = new Map<number, string | undefined>();
  readonly failed: string[] = [];
  /** Answers that did not show the client's own last write. */
  readonly stale: string[] = [];
  requests = 0;
  readonly #url: string;
  readonly #agent = new http.Agent({ keepAlive: true });
  readonly #runs: Promise<void>[];
  #stopped = false;

  constructor(url: string, count = 3) {
    this.#url = url;
    this.#runs = [...Array.from({ length: count }, (_, n) => this.#run(n + 1)), this.#visit()];
    onTestFinished(() => this.stop());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#runs);
    this.#agent.destroy();
  }

  /** Resolves when so many further requests were answered. */
  async progress(more: number): Promise<void> {
    const goal = this.requests + more;
    while (this.requests < goal && !this.#stopped) await sleep(5);
  }

  async #run(client: number): Promise<void> {
    for (let n = 0; !this.#stopped; n += 1) {
      const id = 1_000 * client + (n % 7);
      const value = n % 11 === 10 ? undefined : `client ${client} write ${n}`;
      if (await this.#write(client, id, value)) await this.#read(client, id);
      await sleep(PAUSE_MS);
    }
  }

  /** Many who only read, rows that nobody writes to: who has just written is answered by the authority. */
  async #visit(): Promise<void> {
    for (let n = 1; n <= 100; n += 1) this.acknowledged.set(n, `name ${n}`);
    for (let n = 0; !this.#stopped; n += 1) {
      await this.#read(100 + (n % 20), (n % 100) + 1);
      await sleep(PAUSE_MS);
    }
  }

  async #write(client: number, id: number, value: string | undefined): Promise<boolean> {
    const { status, body } = await this.#send(
      client,
      value === undefined ? "DELETE" : "PUT",
      id,
      value,
    );
    if (status === 200) this.acknowledged.set(id, value);
    else this.failed.push(`write of ${id}: ${status} ${body}`);
    return status === 200;
  }

  async #read(client: number, id: number): Promise<void> {
    const { status, body, side } = await this.#send(client, "GET", id);
    const expected = this.acknowledged.get(id);
    if (status !== 200 && status !== 404) this.failed.push(`read of ${id}: ${status} ${body}`);
    else if ((status === 404 ? undefined : body) !== expected)
      this.stale.push(`${id}: ${side} said ${status} ${body}, not ${expected}`);
  }

  async #send(client: number, method: string, id: number, body?: string) {
    const answer = await new Promise<{ status: number; body: string; side: string }>((resolve) => {
      const request = http.request(
        `${this.#url}/items/${id}`,
        { method, agent: this.#agent, headers: { authorization: `client ${client}` } },
        (response) => {
          let text = "";
          response.on("data", (part: Buffer) => (text += part.toString()));
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? 0,
              body: text,
              side: String(response.headers["crossfade-side"]),
            }),
          );
        },
      );
      request.on("error", (error) => resolve({ status: 0, body: error.message, side: "" }));
      request.end(body);
    });
    this.requests += 1;
    return answer;
  }
}

/** Every row of a side, as the new schema has it. */
export async function itemsOf(plan: Plan, side: Side): Promise<Map<number, string>> {
  const { rows } = await withClient(plan[side].database, (client) =>
    client.query<{ id: number; v: string }>(
      `select id, ${COLUMN[side]} as v from items order by id`,
    ),
  );
  return new Map(rows.map(({ id, v }) => [id, v]));
}
