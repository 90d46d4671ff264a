import net from "node:net";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { ControlLink } from "../../proxy/control-link.ts";
import { PostgresFenceWriter } from "../../proxy/fence-writer.ts";
import { listen, notifyPassed } from "../../store/control/listen.ts";
import { holdWrites, readMigration, releaseWrites } from "../../store/control/migration.ts";
import { beatSidecar, readSidecars } from "../../store/control/sidecars.ts";
import { withClient } from "../support/databases.ts";
import { proxyWorld as world, runRole } from "../support/proxy-world.ts";
import { freePort } from "../../examples/support/free-port.ts";
import { quietLog, send } from "../support/sidecar.ts";

const write = (name: string) => ({ method: "POST", body: "x", headers: { authorization: name } });
const as = (name: string) => ({ headers: { authorization: name } });

async function highestFence(url: string): Promise<bigint> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ id: string }>(
      "select coalesce(max(id), 0) as id from crossfade.log_old where op = 'f'",
    );
    return BigInt(rows[0]?.id ?? 0);
  });
}

test("the role registers, follows state, takes fences, hears what has passed, holds, and takes itself off the list", async () => {
  const { plan, store, change } = await world();
  const { url, stop } = await runRole(plan);
  expect(await readSidecars(store)).toMatchObject([{ epoch: 1, inFlightWrites: 0 }]);
  const pass = async () => notifyPassed(store, 1, await highestFence(plan.old.database));
  const side = async (name: string) => (await send(url, as(name))).body;
  expect(await side("ann")).toBe("old");

  await change({ phase: "read-new", readsNew: 1 });
  await expect
    .poll(async () => {
      await pass();
      return side("ann");
    })
    .toBe("new");
  expect((await send(url, write("ann"))).headers["crossfade-mirrored"]).toBe("pending");
  expect(await side("ann")).toBe("old");
  expect(await side("bob")).toBe("new");
  await expect
    .poll(async () => {
      await pass();
      return side("ann");
    })
    .toBe("new");

  const listener = listen(store, quietLog, "controller");
  await expect.poll(() => listener.connected).toBe(true);
  const kept = listener.next((message) => message.t === "sidecar" && message.hold === 1, 20_000);
  await withClient(plan.control.database, async (client) => {
    await client.query("begin; lock table crossfade.sidecar in share row exclusive mode");
    await holdWrites(store, { attempt: 1, ms: 60_000 });
    expect(await kept, "said although no heartbeat can be written").toBeDefined();
    await client.query("rollback");
  });
  await listener.close();
  await expect.poll(async () => (await readSidecars(store))[0]?.holdAttempt).toBe(1);
  const held = send(url, write("ann"));
  await change({ phase: "write-new", authority: "new", epoch: 2 });
  await expect.poll(async () => (await readSidecars(store))[0]?.epoch).toBe(2);
  await releaseWrites(store, 1);
  expect((await held).body).toBe("new");
  await expect
    .poll(async () => (await readSidecars(store))[0]?.stats.held)
    .toMatchObject({ attempt: 1, writes: 1, failed: 0 });

  await stop();
  expect(await readSidecars(store)).toEqual([]);
});

test("after a gap fences count from where the database went back to", async () => {
  const { plan, store, change } = await world();
  await change({ phase: "read-new", readsNew: 1 });
  const { url } = await runRole(plan);
  const side = async (name: string) => (await send(url, as(name))).body;
  const opens = async (fence: () => Promise<bigint>) =>
    expect
      .poll(async () => {
        await notifyPassed(store, 1, await fence());
        return side("bob");
      })
      .toBe("new");
  await opens(async () => 1_000_000n);
  await change({ gap: "the old database went back" });
  await expect.poll(() => side("bob")).toBe("old");
  await change({ gap: null });
  await opens(async () => highestFence(plan.old.database));
  await send(url, write("ann"));
  expect(await side("ann")).toBe("old");
  expect(await side("bob")).toBe("new");
});

test("a second sidecar: both know before it takes requests, and the authority answers; the first goes on when it is gone", async () => {
  const { plan, store, change } = await world();
  await change({ phase: "read-new", readsNew: 1 });
  const pass = async () => notifyPassed(store, 1, await highestFence(plan.old.database));
  const first = await runRole(plan);
  const side = async (url: string) => {
    await pass();
    return (await send(url, as("ann"))).body;
  };
  await expect.poll(() => side(first.url)).toBe("new");
  const second = await runRole({
    ...plan,
    proxy: { ...plan.proxy, listen: { host: "127.0.0.1", port: await freePort() } },
  });
  for (const { url } of [first, second]) {
    const answer = await send(url, as("ann"));
    expect([answer.body, answer.headers["crossfade-consistency"]]).toEqual([
      "old",
      "authority-only",
    ]);
  }
  await second.stop();
  await expect.poll(() => side(first.url)).toBe("new");
});

test("a share that changes reaches every sidecar at once: by notification, no beat is waited for", async ({
  annotate,
}) => {
  const { plan, change } = await world();
  await change({ phase: "canary", readsNew: 0 });
  const urls: string[] = [];
  for (let n = 0; n < 2; n += 1) {
    const listen = { host: "127.0.0.1", port: await freePort() };
    const proxy = { ...plan.proxy, consistency: "eventual", listen } as const;
    urls.push((await runRole({ ...plan, proxy })).url);
  }
  const arrivals: number[] = [];
  for (const [readsNew, side] of [0, 1, 0, 1, 0].map(
    (n) => [n, n === 1 ? "new" : "old"] as const,
  )) {
    await change({ readsNew });
    const changed = performance.now();
    await Promise.all(
      urls.map((url) =>
        expect.poll(async () => (await send(url, as("ann"))).body, { interval: 2 }).toBe(side),
      ),
    );
    arrivals.push(performance.now() - changed);
  }
  await annotate(`ms until both sidecars followed: ${arrivals.map(Math.round).join(", ")}`);
});

test("a sidecar that starts while writes are held starts holding", async () => {
  const { plan, store } = await world();
  await holdWrites(store, { attempt: 4, ms: 60_000 });
  const { url } = await runRole(plan);
  const held = send(url, write("ann"));
  await expect
    .poll(async () => (await readSidecars(store))[0])
    .toMatchObject({ holdAttempt: 4, inFlightWrites: 0 });
  await releaseWrites(store, 4);
  expect((await held).status).toBe(200);
});

test("a fence is a row of the log under the epoch of the side; on the side that is not the authority it names the newer epoch", async () => {
  const { plan } = await world();
  const fences = new PostgresFenceWriter(plan, "test");
  onTestFinished(() => fences.stop());
  const first = await fences.write("old");
  const second = await fences.write("old");
  expect(first).toMatchObject({ side: "old", epoch: 1 });
  expect(second.fence).toBeGreaterThan(first.fence);
  expect(await highestFence(plan.old.database)).toBe(second.fence);
  await withClient(plan.old.database, (client) =>
    client.query("update crossfade.state set direction = 'reverse', epoch = 2 where side = 'old'"),
  );
  expect(await fences.write("old")).toEqual({ side: "new", epoch: 2, fence: 0n });
});

test("a fence writer whose connection was ended opens another", async () => {
  const { plan } = await world();
  const fences = new PostgresFenceWriter(plan, "test");
  onTestFinished(() => fences.stop());
  await fences.write("old");
  await withClient(plan.old.database, (client) =>
    client.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'crossfade fences%' and datname = current_database()",
    ),
  );
  await expect
    .poll(async () =>
      fences.write("old").then(
        ({ side }) => side,
        () => "failed",
      ),
    )
    .toBe("old");
});

test("a control store that goes away: traffic goes on, fences stop counting, and it heals", async () => {
  const { plan, change } = await world();
  await change({ phase: "read-new", readsNew: 1 });
  const relay = await startRelay(plan.control.database);
  const link = new ControlLink({
    plan: { ...plan, control: { ...plan.control, database: relay.url } },
    id: "cut",
    listen: "127.0.0.1:1",
    log: quietLog,
  });
  onTestFinished(() => link.stop());
  const links: boolean[] = [];
  link.onLink(() => links.push(link.connected()));
  await link.start();
  expect([link.connected(), link.state()?.phase]).toEqual([true, "read-new"]);
  relay.cut();
  await expect.poll(() => links.at(-1)).toBe(false);
  expect(link.state()?.phase).toBe("read-new");
  await change({ phase: "shadow", readsNew: 0 });
  relay.heal();
  await expect.poll(() => links.at(-1)).toBe(true);
  await expect.poll(() => link.state()?.phase).toBe("shadow");
  expect(links).toEqual([true, false, true]);
});

test("a hold that comes to its deadline without news: what was known counts for nothing until it is read again", async () => {
  const { plan, store } = await world();
  const relay = await startRelay(plan.control.database);
  const link = new ControlLink({
    plan: { ...plan, control: { ...plan.control, database: relay.url } },
    id: "in doubt",
    listen: "127.0.0.1:1",
    log: quietLog,
  });
  onTestFinished(() => link.stop());
  await link.start();
  await holdWrites(store, { attempt: 1, ms: 1_000 });
  await expect.poll(() => link.state()?.hold?.attempt, { interval: 5 }).toBe(1);
  const deadline = link.state()?.hold?.deadline ?? Number.NaN;
  relay.cut();
  await expect.poll(() => performance.now() > deadline, { interval: 5 }).toBe(true);
  expect(link.connected()).toBe(false);
  // The controller is gone and nobody releases: the row says so, and that is news too.
  relay.heal();
  await expect.poll(() => link.connected()).toBe(true);
  expect(link.state()?.hold?.attempt).toBe(1);
});

test("a sidecar that was cut off and is back: what the others had heard before counts for nothing", async () => {
  const { plan, store, change } = await world();
  await change({ phase: "read-new", readsNew: 1 });
  const relay = await startRelay(plan.control.database);
  const link = new ControlLink({
    plan: { ...plan, control: { ...plan.control, database: relay.url } },
    id: "back",
    listen: "127.0.0.1:1",
    log: quietLog,
  });
  onTestFinished(() => link.stop());
  const reported = async () =>
    (await readSidecars(store)).find(({ id }) => id === "back")?.stats as
      | { pledge: string; version: number }
      | undefined;
  /** Another sidecar, which has heard of this one what it says it has. */
  const otherHas = async (heard: Awaited<ReturnType<typeof reported>>) => {
    const { pledge = "", version = 0 } = heard ?? {};
    const promises = {
      tokens: plan.proxy.tokens,
      version,
      peers: ["back"],
      pledge: "other:0",
      heard: { back: pledge },
    };
    await beatSidecar(store, {
      id: "other",
      listen: "127.0.0.1:2",
      epoch: 1,
      holdAttempt: undefined,
      inFlightWrites: 0,
      stats: promises as object,
      isNews: true,
    });
  };
  const heardNow = async () => {
    await otherHas(await reported());
    return [link.heard(pledge), link.inStep()];
  };
  const links: boolean[] = [];
  link.onLink(() => links.push(link.connected()));
  await otherHas(undefined);
  await link.start();
  const pledge = link.pledge(plan.proxy.tokens);
  await expect.poll(heardNow).toEqual([true, true]);

  const before = await reported();
  relay.cut();
  await expect.poll(() => links.at(-1)).toBe(false);
  await change({ maintenance: "soon" });
  relay.heal();
  const isBack = async () => {
    await otherHas(before);
    return link.connected();
  };
  await expect.poll(isBack).toBe(true);
  expect([link.heard(pledge), link.inStep()]).toEqual([false, false]);
  // The other has read the state since, and not what this one says now.
  const after = { pledge: before?.pledge ?? "", version: (await readMigration(store)).version };
  await otherHas(after);
  await expect.poll(() => link.inStep()).toBe(true);
  expect(link.heard(pledge)).toBe(false);
  await expect.poll(heardNow).toEqual([true, true]);
});

/** A way to a database that can be cut. */
async function startRelay(database: string): Promise<{ url: string; cut(): void; heal(): void }> {
  const target = new URL(database);
  const sockets = new Set<net.Socket>();
  let open = true;
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    if (!open) return void socket.destroy();
    const onward = net
      .connect(Number(target.port), target.hostname)
      .on("error", () => socket.destroy());
    sockets.add(socket);
    socket.on("close", () => onward.destroy());
    onward.on("close", () => socket.destroy());
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const url = new URL(database);
  url.port = String((server.address() as AddressInfo).port);
  const cut = () => {
    open = false;
    for (const socket of sockets) socket.destroy();
  };
  return { url: url.href, cut, heal: () => (open = true) };
}

test("nothing is left connected when the role has stopped", async () => {
  const { plan } = await world();
  const { stop } = await runRole(plan);
  await stop();
  const client = new pg.Client({ connectionString: plan.old.database });
  await client.connect();
  onTestFinished(() => client.end());
  const left = async () =>
    (
      await client.query(
        "select 1 from pg_stat_activity where application_name like 'crossfade sidecar%' and datname = current_database()",
      )
    ).rowCount;
  await expect.poll(left).toBe(0);
});
