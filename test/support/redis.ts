import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { expect, onTestFinished } from "vitest";
import { freePort } from "../../examples/support/free-port.ts";

/** Why tests that need a real Redis do not run on this machine; undefined: they do. */
export const redisMissing =
  spawnSync("redis-server", ["--version"]).status === 0
    ? undefined
    : "SKIPPED: redis-server is not installed (Debian: apt-get install redis-server)";

// eslint-disable-next-line no-console -- a test that did not run must be seen
if (redisMissing !== undefined) console.warn(redisMissing);

/** A Redis of this test's own, without a file to come back from. */
export class TestRedis {
  readonly url: string;
  readonly #port: number;
  readonly #folder: string;
  #child: ChildProcess | undefined;

  constructor(port: number, folder: string) {
    this.#port = port;
    this.#folder = folder;
    this.url = `redis://127.0.0.1:${port}/0`;
  }

  async start(...more: string[]): Promise<void> {
    const options = ["--port", `${this.#port}`, "--bind", "127.0.0.1", "--save", "", "--dir"];
    this.#child = spawn("redis-server", [...options, this.#folder, ...more], { stdio: "ignore" });
    await expect.poll(() => this.ask((redis) => redis.ping()).catch(() => "")).toBe("PONG");
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  /** It takes connections and commands, and answers nothing. */
  pause(): void {
    this.#child?.kill("SIGSTOP");
  }

  goOn(): void {
    this.#child?.kill("SIGCONT");
  }

  /** Over a connection of its own. */
  async ask<T>(question: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(this.url, {
      lazyConnect: true,
      maxRetriesPerRequest: 0,
      retryStrategy: () => null,
    });
    redis.on("error", () => {});
    try {
      await redis.connect();
      return await question(redis);
    } finally {
      redis.disconnect();
    }
  }
}

/** Started, and gone at the test's end. */
export async function startRedis(...more: string[]): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-redis-"));
  const redis = new TestRedis(await freePort(), folder);
  onTestFinished(() => redis.kill());
  await redis.start(...more);
  return redis;
}
