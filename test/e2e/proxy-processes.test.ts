import { once } from "node:events";
import { readFileSync } from "node:fs";
import net from "node:net";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { holdWrites, releaseWrites } from "../../store/control/migration.ts";
import { readSidecars } from "../../store/control/sidecars.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { CliProcess } from "../support/cli.ts";
import { writePlanFile } from "../support/plan-files.ts";
import { proxyWorld } from "../support/proxy-world.ts";
import { send } from "../support/sidecar.ts";

const within = { timeout: 30_000 };

/** `crossfade proxy` with two processes on one address. */
async function twoProcesses() {
  const { plan, store, change } = await proxyWorld();
  const { port } = plan.proxy.listen;
  const file = writePlanFile({
    name: plan.name,
    old: { database: plan.old.database, app: plan.old.app },
    new: { database: plan.new.database, app: plan.new.app },
    forward: "identity",
    reverse: "identity",
    proxy: { listen: `127.0.0.1:${port}`, processes: 2 },
  });
  const cli = new CliProcess(["proxy", "--plan", file, "--json", "--log-level", "warn"]);
  await expect.poll(() => cli.stdout, within).toContain('"listen"');
  return { cli, store, change, port, url: `http://127.0.0.1:${port}` };
}

function childrenOf(pid: number | undefined): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text === "" ? [] : text.split(" ").map(Number);
}

async function requestsBySidecar(store: ControlStore): Promise<number[]> {
  return (await readSidecars(store)).map(({ stats }) =>
    (stats.traffic ?? []).reduce((sum, { requests }) => sum + requests, 0),
  );
}

/** Both have answered something: every request is a connection of its own, and the kernel deals them out. */
async function untilBothAnswer({ store, url }: { store: ControlStore; url: string }) {
  await expect
    .poll(async () => {
      const answers = await Promise.all(Array.from({ length: 10 }, () => send(url)));
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      return (await requestsBySidecar(store)).filter((requests) => requests > 0).length;
    }, within)
    .toBe(2);
}

/** A connection that stays. */
class Kept {
  readonly socket: net.Socket;
  #text = "";

  constructor(port: number) {
    this.socket = net.connect(port, "127.0.0.1");
    this.socket.on("error", () => {});
    this.socket.on("data", (data: Buffer) => (this.#text += data.toString("latin1")));
    onTestFinished(() => void this.socket.destroy());
  }

  /** The first line of the answer; undefined: the connection is gone. */
  async ask(): Promise<string | undefined> {
    this.#text = "";
    this.socket.write("GET / HTTP/1.1\r\nhost: app\r\n\r\n");
    while (!this.#text.endsWith("old") && !this.socket.closed) {
      await Promise.race([once(this.socket, "data"), once(this.socket, "close")]).catch(() => {});
    }
    return this.socket.closed ? undefined : this.#text.split("\r\n", 1)[0];
  }
}

test("two processes share the address, are sidecars of their own, and a flip holds both", async () => {
  const world = await twoProcesses();
  const { cli, store, change, url } = world;
  const places = (await readSidecars(store)).map(({ id }) => Number(id.split("#")[1]));
  expect(places.toSorted((a, b) => a - b)).toEqual([1, 2]);
  await untilBothAnswer(world);

  await holdWrites(store, { attempt: 1, ms: 60_000 });
  await expect
    .poll(async () => (await readSidecars(store)).map(({ holdAttempt }) => holdAttempt), within)
    .toEqual([1, 1]);
  let answered = 0;
  const writes = Array.from({ length: 20 }, async () => {
    const answer = await send(url, { method: "POST", body: "x" });
    answered += 1;
    return answer.body;
  });
  await expect.poll(async () => (await send(url)).status).toBe(200);
  expect(answered).toBe(0);
  await change({ phase: "write-new", authority: "new", epoch: 2 });
  await expect
    .poll(async () => (await readSidecars(store)).map(({ epoch }) => epoch), within)
    .toEqual([2, 2]);
  await releaseWrites(store, 1);
  expect(await Promise.all(writes)).toEqual(writes.map(() => "new"));

  cli.child.kill("SIGTERM");
  expect(await cli.ended).toBe(0);
  expect(await readSidecars(store)).toEqual([]);
});

test("one process is killed: the other loses nothing, and the killed one is started again", async () => {
  const world = await twoProcesses();
  const { cli, store, url, port } = world;
  const kept = Array.from({ length: 16 }, () => new Kept(port));
  for (const each of kept) expect(await each.ask()).toBe("HTTP/1.1 200 OK");
  const [first = 0, second = 0] = childrenOf(cli.child.pid);
  process.kill(first, "SIGKILL");
  await expect.poll(() => childrenOf(cli.child.pid), within).not.toContain(first);

  const fresh = await Promise.all(Array.from({ length: 20 }, () => send(url)));
  expect(fresh.map(({ status }) => status)).toEqual(fresh.map(() => 200));
  const answers = await Promise.all(kept.map(async (each) => each.ask()));
  const survivors = kept.filter(({ socket }) => !socket.closed);
  expect(answers.filter((answer) => answer !== undefined)).toHaveLength(survivors.length);
  expect(survivors.length).toBeGreaterThan(0);
  expect(survivors.length).toBeLessThan(kept.length);

  await expect
    .poll(() => childrenOf(cli.child.pid).filter((pid) => pid !== second).length, within)
    .toBe(1);
  expect(childrenOf(cli.child.pid)).toContain(second);
  await untilBothAnswer({ store, url });
  for (const each of survivors) expect(await each.ask()).toBe("HTTP/1.1 200 OK");
});

test("what cannot be shared is refused in words", async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void taken.close());
  const { port } = taken.address() as AddressInfo;
  const planOn = (listen: string) =>
    writePlanFile({
      name: "shared",
      old: { database: "postgres://127.0.0.1:9/old", app: "http://127.0.0.1:9" },
      new: { database: "postgres://127.0.0.1:9/new", app: "http://127.0.0.1:9" },
      forward: "identity",
      proxy: { listen, processes: 2 },
    });
  const refusal = async (...args: readonly string[]) => {
    const cli = new CliProcess(["proxy", "--plan", ...args]);
    expect(await cli.ended).toBe(2);
    return cli.stderr;
  };
  const file = planOn(`127.0.0.1:${port}`);
  const [inUse, noPlace, noPort] = await Promise.all([
    refusal(file),
    refusal(file, "--process", "3"),
    refusal(planOn("127.0.0.1:0")),
  ]);
  expect(inUse).toContain(`another process listens on 127.0.0.1:${port}`);
  expect(noPlace).toContain(
    "--process: found 3, expected a place among proxy.processes, which is 2",
  );
  expect(noPort).toContain(
    "proxy.listen: found port 0, expected a port that 2 processes can share",
  );
});
