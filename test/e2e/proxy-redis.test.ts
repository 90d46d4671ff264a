import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { notifyPassed } from "../../store/control/listen.ts";
import { holdWrites, releaseWrites } from "../../store/control/migration.ts";
import { readSidecars } from "../../store/control/sidecars.ts";
import type { SidecarSeen } from "../../store/control/sidecars.ts";
import { CuttableProxy } from "../support/cuttable-proxy.ts";
import { withClient } from "../support/databases.ts";
import { proxyWorld, runRole } from "../support/proxy-world.ts";
import { freePort } from "../../examples/support/free-port.ts";
import type { ProxyWorld } from "../support/proxy-world.ts";
import { redisMissing, startRedis } from "../support/redis.ts";
import type { TestRedis } from "../support/redis.ts";
import { send, startApp } from "../support/sidecar.ts";
import type { Answer } from "../support/sidecar.ts";

const LONG = { timeout: 20_000 };
const withRedis = test.skipIf(redisMissing !== undefined);

interface Fleet extends ProxyWorld {
  readonly urls: readonly [string, string];
  readonly redis: TestRedis;
  /** The second one's way to the control store. */
  readonly line: CuttableProxy;
  /** What each client has written last, by its name: the apps' data. Old is the authority unless a flip moved it. */
  readonly data: Record<"old" | "new", Map<string, number>>;
  /** The mirror, by hand: copies what was written before each fence, then passes it. */
  readonly mirrorOnce: () => Promise<void>;
  authority: "old" | "new";
}

/** Two sidecars in read-new on one control store and one Redis, in front of two apps that remember what each client wrote. */
async function startFleet(): Promise<Fleet> {
  const redis = await startRedis();
  const world = await proxyWorld();
  const data = { old: new Map<string, number>(), new: new Map<string, number>() };
  const app = (side: "old" | "new") =>
    startApp(side, async (request, response) => {
      const sid = /sid=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
      const name = sid ?? request.headers.authorization ?? "";
      const url = new URL(request.url ?? "/", "http://app");
      request.resume();
      if (url.pathname === "/login") {
        const session = url.searchParams.get("session") ?? "";
        data[side].set(session, data[side].get(name) ?? 0);
        response.setHeader("set-cookie", `sid=${session}; Path=/`);
      } else if (request.method === "POST") {
        data[side].set(name, Number(url.searchParams.get("n")));
      }
      // Without a length, as many apps answer: its end comes after its head.
      if (url.pathname === "/chunked") response.write("");
      response.end(`${side} ${data[side].get(name) ?? 0}`);
    });
  const [old, next] = [await app("old"), await app("new")];
  const plan = {
    ...world.plan,
    redis: redis.url,
    old: { ...world.plan.old, app: old.url },
    new: { ...world.plan.new, app: next.url },
    proxy: { ...world.plan.proxy, tokens: "redis" as const },
  };
  await world.change({ phase: "read-new", readsNew: 1 });
  const first = await runRole(plan);
  const listen = { host: "127.0.0.1", port: await freePort() };
  const control = new URL(plan.control.database);
  const line = await CuttableProxy.open({ host: control.hostname, port: Number(control.port) });
  control.port = String(line.port);
  const second = await runRole({
    ...plan,
    control: { ...plan.control, database: control.href },
    proxy: { ...plan.proxy, listen },
  });
  const fleet: Fleet = {
    ...world,
    plan,
    redis,
    line,
    data,
    urls: [first.url, second.url],
    authority: "old",
    mirrorOnce: async () => {
      const from = fleet.authority;
      const { rows } = await withClient(plan[from].database, (client) =>
        client.query<{ id: string; epoch: number }>(
          `select coalesce(max(id), 0) as id, (select epoch from crossfade.state where side = '${from}') as epoch
           from crossfade.log_${from} where op = 'f'`,
        ),
      );
      // Like a sync, it does nothing in a direction that is over.
      if (fleet.authority !== from) return;
      const to = from === "old" ? "new" : "old";
      for (const [name, n] of data[from]) data[to].set(name, n);
      await notifyPassed(world.store, Number(rows[0]?.epoch), BigInt(rows[0]?.id ?? 0));
    },
  };
  return fleet;
}

function runMirror(fleet: Fleet, pauseMs = () => 0): () => Promise<void> {
  const state = { stopped: false };
  const loop = (async () => {
    while (!state.stopped) {
      await fleet.mirrorOnce();
      await new Promise((resolve) => setTimeout(resolve, pauseMs()));
    }
  })();
  const stop = async () => {
    state.stopped = true;
    await loop;
  };
  onTestFinished(stop);
  return stop;
}

const as = (name: string) => ({ headers: { authorization: name } });
const write = (url: string, name: string, n: number) =>
  send(`${url}/?n=${n}`, { ...as(name), method: "POST", body: "x" });

/** What old answers binds anew: whoever asks again before the mirror can have passed that, stays there. */
async function untilNew(fleet: Fleet, name: string): Promise<void> {
  for (const url of fleet.urls)
    await expect
      .poll(async () => (await send(url, as(name))).body, { timeout: 20_000, interval: 500 })
      .toMatch(/^new/);
}

withRedis("what one sidecar answered binds the client at the other, cookies or not", async () => {
  const fleet = await startFleet();
  const stop = runMirror(fleet);
  await untilNew(fleet, "ann");
  await stop();
  const [a, b] = fleet.urls;
  for (const [n, [writer, reader]] of (
    [
      [a, b],
      [b, a],
    ] as const
  ).entries()) {
    expect((await write(writer, "ann", n + 1)).status).toBe(200);
    expect((await send(reader, as("ann"))).body).toBe(`old ${n + 1}`);
    const again = runMirror(fleet);
    // On a busy machine Redis may answer later than a request waits for it, and then old answers: never less than was seen.
    await expect
      .poll(async () => {
        const { body } = await send(reader, as("ann"));
        expect(["old", "new"].map((side) => `${side} ${n + 1}`)).toContain(body);
        return (await send(reader, as(`somebody ${performance.now()}`))).body;
      }, LONG)
      .toMatch(/^new/);
    await untilNew(fleet, "ann");
    await again();
  }
});

withRedis(
  "a Redis that was slow for a moment keeps nobody with the authority for as long as a token lives",
  async () => {
    const fleet = await startFleet();
    runMirror(fleet);
    await untilNew(fleet, "ann");
    const [a] = fleet.urls;
    fleet.redis.pause();
    const written = await withClient(fleet.plan.old.database, async (client) => {
      // The fence comes when Redis has been given up, and the token that it is to replace is on its way.
      await client.query("begin; lock table crossfade.log_old in share mode");
      const answer = write(a, "ann", 1);
      await sleep(150);
      await client.query("commit");
      return { answer };
    });
    await sleep(150);
    fleet.redis.goOn();
    expect((await written.answer).status).toBe(200);
    await untilNew(fleet, "ann");
  },
);

withRedis("nor does one that was slow while a fence was being written", async () => {
  const fleet = await startFleet();
  runMirror(fleet);
  await untilNew(fleet, "ann");
  const [a] = fleet.urls;
  const answer = await withClient(fleet.plan.old.database, async (client) => {
    await client.query("begin; lock table crossfade.log_old in share mode");
    // Its token is stored, and stays open until the fence is there.
    const written = write(a, "ann", 1);
    await sleep(100);
    fleet.redis.pause();
    // Somebody else's token is not stored in time: Redis is given up, and looked at again.
    const other = write(a, "bob", 2);
    await sleep(150);
    fleet.redis.goOn();
    await sleep(1_500);
    await client.query("commit");
    return { written, other };
  });
  expect((await answer.written).status).toBe(200);
  expect((await answer.other).status).toBe(200);
  await untilNew(fleet, "ann");
});

/** As a flip does it: hold, everything passed, the authority moves, everybody has heard, release. */
async function flip(fleet: Fleet, attempt: number): Promise<void> {
  await beginFlip(fleet, attempt, 30_000);
  await decideFlip(fleet, attempt);
  await all(fleet, (seen) => seen.epoch === attempt + 1);
  await releaseWrites(fleet.store, attempt);
}

async function beginFlip(fleet: Fleet, attempt: number, ms: number): Promise<void> {
  await holdWrites(fleet.store, { attempt, ms });
  await all(fleet, ({ holdAttempt }) => holdAttempt === attempt);
}

async function decideFlip(fleet: Fleet, attempt: number): Promise<void> {
  const { plan, change } = fleet;
  const epoch = attempt + 1;
  const to = fleet.authority === "old" ? "new" : "old";
  await fleet.mirrorOnce();
  for (const side of ["old", "new"] as const) {
    const text = "update crossfade.state set direction = $1, epoch = $2 where side = $3";
    const direction = to === "old" ? "forward" : "reverse";
    await withClient(plan[side].database, (client) => client.query(text, [direction, epoch, side]));
  }
  fleet.authority = to;
  await change({ phase: to === "new" ? "write-new" : "read-new", authority: to, epoch });
}

async function all(fleet: Fleet, test: (seen: SidecarSeen) => boolean): Promise<void> {
  await expect
    .poll(async () => (await readSidecars(fleet.store)).every(test), { timeout: 20_000 })
    .toBe(true);
}

withRedis(
  "one that is cut off in the middle of a flip follows it when its hold is over",
  async () => {
    const fleet = await startFleet();
    const stop = runMirror(fleet);
    await untilNew(fleet, "ann");
    await stop();
    const [first, second] = fleet.urls;
    // What the second one knows by itself sends ann to old, until it hears that the mirror has passed it.
    await write(second, "ann", 1);
    await beginFlip(fleet, 1, 2_000);
    const over = performance.now() + 2_000;
    fleet.line.cut();
    await decideFlip(fleet, 1);
    await expect
      .poll(async () => (await readSidecars(fleet.store)).some(({ epoch }) => epoch === 2), LONG)
      .toBe(true);
    await expect.poll(() => performance.now() > over, LONG).toBe(true);
    await releaseWrites(fleet.store, 1);
    expect((await write(first, "ann", 2)).body).toBe("new 2");
    expect((await send(second, as("ann"))).body).toBe("new 2");
  },
);

withRedis(
  "one that has neither Redis nor the control store says that it promises nothing",
  async () => {
    const fleet = await startFleet();
    const [, second] = fleet.urls;
    const said = async () => (await write(second, "ann", 1)).headers["crossfade-consistency"];
    await fleet.redis.kill();
    await said();
    // The first one knows that nothing is stored: it asks the authority.
    await expect.poll(said).toBeUndefined();
    fleet.line.cut();
    await expect.poll(said).toBe("none");
    fleet.line.mend();
    await expect.poll(said).toBeUndefined();
  },
);

/** A sidecar that cannot keep its promise says so. */
function isPromised(answer: Answer): boolean {
  return answer.headers["crossfade-consistency"] !== "none";
}

/** Clients that write, read and log in at either sidecar, and look whether they ever see less than they have seen. */
function startClients(fleet: Fleet, random: () => number) {
  const told = {
    stale: [] as string[],
    reads: { old: 0, new: 0 },
    writes: { promised: 0, unpromised: 0 },
    failed: [] as string[],
    stopped: false,
  };
  const clients = Array.from({ length: 6 }, async (_, client) => {
    let headers: Record<string, string> = { authorization: `c${client}` };
    let least = 0;
    for (let n = 1; !told.stopped; n++) {
      // Who never pauses is bound anew before the mirror has passed what bound them.
      if (random() < 0.5) await new Promise((resolve) => setTimeout(resolve, random() * 80));
      const url = fleet.urls[random() < 0.5 ? 0 : 1];
      const dice = random();
      const path = random() < 0.3 ? "/chunked" : "/";
      const post = { headers, method: "POST", body: "x" };
      if (dice < 0.3) {
        const answer = await send(`${url}${path}?n=${n}`, post);
        if (answer.status !== 200) told.failed.push(`c${client} #${n}: ${answer.status}`);
        else if (isPromised(answer)) least = n;
        // The others have not heard in time that Redis is away: a machine that stalls takes longer than a write waits for that.
        told.writes[isPromised(answer) ? "promised" : "unpromised"] += 1;
      } else if (dice < 0.34) {
        const session = `s${client}x${n}`;
        const method = random() < 0.5 ? "POST" : "GET";
        const answer = await send(`${url}/login?session=${session}`, { ...post, method });
        if (answer.headers["set-cookie"] !== undefined && method === "POST")
          headers = { cookie: `sid=${session}` };
        if (answer.status !== 200) told.failed.push(`c${client} login: ${answer.status}`);
      } else {
        const answer = await send(`${url}${path}`, { headers });
        const { status, body } = answer;
        const [side, found] = body.split(" ");
        if (status !== 200) told.failed.push(`c${client} #${n}: ${status} ${body}`);
        else if (Number(found) < least) told.stale.push(`c${client} #${n}: ${body}, had ${least}`);
        else if (isPromised(answer)) least = Number(found);
        if (side === "old" || side === "new") told.reads[side] += 1;
      }
    }
  });
  const stop = async () => {
    told.stopped = true;
    await Promise.all(clients);
    return told;
  };
  onTestFinished(async () => void (await stop()));
  return { told, stop };
}

/** mulberry32 */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

withRedis(
  "flushed, paused, killed and started again, across flips: nobody reads less than they have seen",
  async () => {
    const seed = Number(process.env["CROSSFADE_SEED"] ?? 1);
    const random = seeded(seed);
    const fleet = await startFleet();
    runMirror(fleet, () => random() * 10);
    await untilNew(fleet, "probe");
    const { told, stop } = startClients(fleet, random);
    const { redis } = fleet;
    const news = async () => {
      const before = told.reads.new;
      await expect.poll(() => told.reads.new, { timeout: 20_000 }).toBeGreaterThan(before + 10);
    };
    const blows = [
      () => redis.ask((client) => client.flushall()),
      async () => {
        redis.pause();
        await new Promise((resolve) => setTimeout(resolve, 50 + random() * 200));
        redis.goOn();
      },
      async () => {
        await redis.kill();
        await new Promise((resolve) => setTimeout(resolve, random() * 200));
        await redis.start();
      },
      () => redis.ask((client) => client.call("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")),
    ];
    for (let round = 1; round <= 2; round++) {
      for (const blow of blows.toSorted(() => random() - 0.5)) {
        await news();
        await blow();
      }
      await flip(fleet, 2 * round - 1);
      await news();
      await redis.ask((client) => client.flushall());
      await flip(fleet, 2 * round);
    }
    await news();
    const { stale, failed, reads, writes } = await stop();
    expect({ seed, stale, failed }).toEqual({ seed, stale: [], failed: [] });
    expect(reads.new).toBeGreaterThan(80);
    expect(writes.promised).toBeGreaterThan(10 * writes.unpromised);
  },
);
