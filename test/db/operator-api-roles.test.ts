import { expect, onTestFinished, test } from "vitest";
import { parseTokens } from "../../config/operator-tokens.ts";
import { query } from "../../store/control/open.ts";
import { listen } from "../../store/control/listen.ts";
import { buildApi } from "../../switchover/api.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { itemsPlan, startController } from "../support/controller-world.ts";

interface Operation {
  readonly security?: readonly object[];
  readonly description?: string;
  readonly responses: Readonly<Record<string, object>>;
}

const TOKENS =
  "viewer:look-only-1,operator:do-things-1,approver:say-yes-11,approver:long-gone-1;expires=2020-01-01";
const CALLERS = {
  nobody: undefined,
  stranger: "never-given",
  expired: "long-gone-1",
  viewer: "look-only-1",
  operator: "do-things-1",
  approver: "say-yes-11",
} as const;
type Caller = keyof typeof CALLERS;
const RANK: Readonly<Partial<Record<Caller, number>>> = { viewer: 1, operator: 2, approver: 3 };
const NEEDED: Readonly<Record<string, number>> = {
  "Role: viewer": 1,
  "Role: operator": 2,
  "Role: approver": 3,
};

async function world() {
  const plan = await itemsPlan();
  await startController(plan);
  const { name, control } = plan;
  const store = openTestStore(control.database, { plan: name, schema: control.schema });
  const listener = listen(store, silentLog, "controller");
  const engine = openRealEngine({ plan, store, listener, log: silentLog });
  const server = buildApi({ plan, store, listener, engine, log: silentLog }, parseTokens(TOKENS));
  onTestFinished(async () => {
    await server.close();
    await listener.close();
  });
  const document = (await server.inject({ url: "/v1/openapi.json" })).json() as {
    paths: Record<string, Record<string, Operation>>;
  };
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      method: method.toUpperCase() as "GET" | "POST",
      path,
      operation,
    })),
  );
  return { store, server, operations };
}

/** From the tree that fastify prints: what stands further in goes on from what it stands under. */
function routesOf(tree: string): string[] {
  const above: string[] = [];
  return tree.split("\n").flatMap((line) => {
    const found = /^(.*?)── (\S*)(?: \(([A-Z, ]+)\))?$/.exec(line);
    if (found === null) return [];
    const [, indent = "", part = "", methods = ""] = found;
    const depth = indent.length / 4;
    const path = (above[Math.floor(depth) - 1] ?? "") + part;
    above[Math.floor(depth)] = path;
    return methods
      .split(", ")
      .filter((method) => method === "GET" || method === "POST")
      .map((method) => `${method} ${path.replace(/:(\w+)/g, "{$1}")}`);
  });
}

test("the OpenAPI document names every route, and no other", async () => {
  const { server, operations } = await world();
  const api = routesOf(server.printRoutes()).filter(
    (route) => !/^GET \/(\*|console.*)?$/.test(route),
  );
  expect(api.length).toBeGreaterThan(15);
  expect(operations.map(({ method, path }) => `${method} ${path}`).toSorted()).toEqual(
    api.toSorted(),
  );
});

test("each call answers each caller as the document says, and whoever is turned away is in the timeline", async () => {
  const { store, server, operations } = await world();
  const turnedAway: string[] = [];
  for (const [i, [caller, token]] of Object.entries(CALLERS).entries()) {
    // A place of their own: who tries wrong tokens is slowed down.
    let place = 0;
    for (const { method, path, operation } of operations) {
      const open = operation.security?.length === 0;
      const allowed =
        open || (RANK[caller as Caller] ?? 0) >= (NEEDED[operation.description ?? ""] ?? 9);
      // A stream that is allowed has no end; it is followed elsewhere.
      if (allowed && path === "/v1/events") continue;
      place += 1;
      const answer = await server.inject({
        method,
        url: path.replace("{id}", "1"),
        remoteAddress: `192.0.2.${10 * i + (place >> 3)}`,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        // Nothing any command knows: whoever is let in gets 400, and nothing happens.
        ...(method === "POST" ? { payload: { surprise: true } } : {}),
      });
      const said = `${caller} ${method} ${path}: ${answer.statusCode}`;
      expect(Object.keys(operation.responses), said).toContain(String(answer.statusCode));
      if (allowed) expect([200, 400, 404], said).toContain(answer.statusCode);
      else {
        expect(answer.statusCode, said).toBe(RANK[caller as Caller] === undefined ? 401 : 403);
        turnedAway.push(`${method} ${path.replace("{id}", ":id")} ${answer.statusCode}`);
      }
      if (method === "POST" && allowed) expect(answer.statusCode, said).toBe(400);
    }
  }
  const rows = await query<{ line: string }>(
    store,
    `select (detail->>'method') || ' ' || (detail->>'path') || ' ' || (detail->>'status') as line
     from ${store.table("event")} where kind = 'denied'`,
  );
  expect(rows.map(({ line }) => line).toSorted()).toEqual(turnedAway.toSorted());
  expect(await query(store, `select 1 from ${store.table("command")}`), "nothing was done").toEqual(
    [],
  );
});
