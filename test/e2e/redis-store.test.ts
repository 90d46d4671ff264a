import { expect, onTestFinished, test } from "vitest";
import type { Log } from "../../config/lifecycle.ts";
import { currentGeneration, look, mark, RedisUnfit } from "../../store/redis/client-tokens.ts";
import { closeRedis, describeRedis, openRedis } from "../../store/redis/open.ts";
import type { Redis } from "../../store/redis/open.ts";
import { redisMissing, startRedis } from "../support/redis.ts";
import { quietLog } from "../support/sidecar.ts";

const withRedis = test.skipIf(redisMissing !== undefined);
const PREFIX = "crossfade:{test}:";
const MARK = { keys: ["ann"], field: "a", ttlMs: 60_000 };

async function connect(url: string, log: Log = quietLog): Promise<Redis> {
  const redis = openRedis(url, log);
  onTestFinished(() => closeRedis(redis));
  await expect.poll(() => redis.status).toBe("ready");
  return redis;
}

withRedis(
  "a flush, and a restart that loads what was saved, end the generation: nothing said before counts",
  async () => {
    const server = await startRedis();
    const redis = await connect(server.url);
    const first = { prefix: PREFIX, generation: await currentGeneration(redis, PREFIX) };
    expect(await mark(redis, first, { ...MARK, value: "1.5.old" })).toBe(true);
    expect(await mark(redis, first, { ...MARK, field: "b", value: "1.open.old" })).toBe(true);
    expect((await look(redis, first, ["ann"]))?.toSorted()).toEqual(["1.5.old", "1.open.old"]);
    expect(await mark(redis, first, { ...MARK, field: "b", value: undefined })).toBe(true);
    expect(await look(redis, first, ["ann", "bob"])).toEqual(["1.5.old"]);

    await redis.save();
    await server.kill();
    await server.start();
    await expect.poll(() => redis.status, { timeout: 20_000 }).toBe("ready");
    // The file has brought the old generation back, under another run of the server.
    expect(await redis.get(`${PREFIX}generation`)).toBe(first.generation);
    const second = { prefix: PREFIX, generation: await currentGeneration(redis, PREFIX) };
    expect(second.generation).not.toBe(first.generation);
    expect(await look(redis, second, ["ann"])).toEqual([]);

    await redis.flushall();
    expect(await look(redis, second, ["ann"])).toBeUndefined();
    expect(await mark(redis, second, { ...MARK, value: "1.5.old" })).toBe(false);
    const made = [currentGeneration(redis, PREFIX), currentGeneration(redis, PREFIX)];
    const [one, other] = await Promise.all(made);
    expect(one).toBe(other);
  },
);

withRedis("a token ends with its life, one by one", async () => {
  const redis = await connect((await startRedis()).url);
  const place = { prefix: PREFIX, generation: await currentGeneration(redis, PREFIX) };
  await mark(redis, place, { ...MARK, value: "short", ttlMs: 50 });
  await mark(redis, place, { ...MARK, field: "b", value: "long" });
  await expect.poll(() => look(redis, place, ["ann"])).toEqual(["long"]);
});

withRedis("a Redis that drops keys is not used, and says why", async () => {
  const server = await startRedis("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru");
  const redis = await connect(server.url);
  await expect(currentGeneration(redis, PREFIX)).rejects.toThrow(RedisUnfit);
  await expect(currentGeneration(redis, PREFIX)).rejects.toThrow("allkeys-lru");
});

test("a Redis that is away is no error, and its password is told to nobody", async () => {
  const lines: string[] = [];
  const note = (fields: object, message: string) =>
    void lines.push(`${JSON.stringify(fields)} ${message}`);
  const url = "redis://user:hunter2@127.0.0.1:1/0";
  const redis = openRedis(url, { debug: note, info: note, warn: note, error: note });
  onTestFinished(() => closeRedis(redis));
  await expect.poll(() => lines.length).toBeGreaterThan(0);
  await expect(redis.ping()).rejects.toThrow();
  expect(lines.join("\n")).toContain("127.0.0.1:1");
  expect(lines.join("\n")).not.toContain("hunter2");
  expect(describeRedis(url)).toBe("127.0.0.1:1/0");
});
