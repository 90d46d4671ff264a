import type { Redis } from "./open.ts";

/**
 * What binds clients, in Redis: under a generation, one hash per client and in it one field per holder (a connection of a sidecar),
 * so that nobody overwrites what another has said. Every statement checks the generation in the same step: whoever still uses
 * an older one is told so.
 *
 * A generation names the run of the server it was made on. A server that was started again, restored from a file, or another
 * one that took over has another run: what it still knows counts for nothing.
 */
export interface TokenPlace {
  /** Common to all sidecars of one migration. */
  readonly prefix: string;
  readonly generation: string;
}

/** Why a Redis that answers cannot be trusted with tokens. */
export class RedisUnfit extends Error {}

const MARK = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #KEYS do
  local all = redis.call('HGETALL', KEYS[i])
  for j = 1, #all, 2 do
    if tonumber(string.match(all[j + 1], '@(%d+)$')) < now then redis.call('HDEL', KEYS[i], all[j]) end
  end
  if ARGV[3] == '' then
    redis.call('HDEL', KEYS[i], ARGV[2])
  else
    redis.call('HSET', KEYS[i], ARGV[2], ARGV[3] .. '@' .. string.format('%.0f', now + ARGV[4]))
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
return 1`;

const LOOK = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = {}
for i = 2, #KEYS do
  for _, value in ipairs(redis.call('HVALS', KEYS[i])) do
    local text, ends = string.match(value, '^(.*)@(%d+)$')
    if tonumber(ends) >= now then found[#found + 1] = text end
  end
end
return found`;

export interface Mark {
  readonly keys: readonly string[];
  /** Which of the things a holder says of these clients this is. */
  readonly field: string;
  /** undefined: takes it back. */
  readonly value: string | undefined;
  readonly ttlMs: number;
}

/** Sets, or takes back, a field of each client. False: the generation is not current. */
export async function mark(redis: Redis, place: TokenPlace, said: Mark): Promise<boolean> {
  const keys = [generationKey(place.prefix), ...said.keys.map((key) => clientKey(place, key))];
  const { field, value = "", ttlMs } = said;
  return (
    (await redis.eval(MARK, keys.length, ...keys, place.generation, field, value, ttlMs)) === 1
  );
}

/** All that is said of these clients. Undefined: the generation is not current. */
export async function look(
  redis: Redis,
  place: TokenPlace,
  clients: readonly string[],
): Promise<string[] | undefined> {
  const keys = [generationKey(place.prefix), ...clients.map((key) => clientKey(place, key))];
  const found = await redis.eval(LOOK, keys.length, ...keys, place.generation);
  return Array.isArray(found) ? found.map(String) : undefined;
}

/** The current generation of this server; makes one where there is none, or one of another run. Throws RedisUnfit. */
export async function currentGeneration(redis: Redis, prefix: string): Promise<string> {
  const run = await requireFit(redis);
  const key = generationKey(prefix);
  const isOfThisRun = (generation: string | null) => generation?.startsWith(`${run}.`) === true;
  const found = await redis.get(key);
  if (found !== null && isOfThisRun(found)) return found;
  const made = `${run}.${crypto.randomUUID()}`;
  if (found === null) await redis.set(key, made, "NX");
  else await redis.set(key, made);
  const now = await redis.get(key);
  if (now === null || !isOfThisRun(now))
    throw new RedisUnfit("its generation changes all the time");
  return now;
}

/** What says that this Redis forgets nothing before its time. Returns the run of the server. */
async function requireFit(redis: Redis): Promise<string> {
  const info = await redis.info();
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1] ?? "";
  if (field("role") !== "master") throw new RedisUnfit("it is a replica");
  if (field("maxmemory") !== "0" && field("maxmemory_policy") !== "noeviction") {
    throw new RedisUnfit(
      `its maxmemory-policy is ${field("maxmemory_policy")}, which drops keys; expected noeviction`,
    );
  }
  return field("run_id");
}

function generationKey(prefix: string): string {
  return `${prefix}generation`;
}

function clientKey({ prefix, generation }: TokenPlace, client: string): string {
  return `${prefix}${generation}:${client}`;
}
