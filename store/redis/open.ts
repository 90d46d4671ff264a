import { Redis } from "ioredis";
import { messageOf } from "../../config/errors.ts";
import type { Log } from "../../config/lifecycle.ts";

export type { Redis } from "ioredis";

/** A Redis that says nothing for so long while connecting is taken for away. */
const CONNECT_MS = 2_000;
const LONGEST_BACKOFF_MS = 2_000;

/** Which Redis a URL means, for people and logs: `host:port/db`, never a user or a password. Never throws. */
export function describeRedis(url: string): string {
  if (!URL.canParse(url)) return "(unreadable address)";
  const { hostname, port, pathname } = new URL(url);
  return `${hostname === "" ? "localhost" : hostname}:${port === "" ? "6379" : port}/${pathname.slice(1) || "0"}`;
}

/**
 * Connects to a Redis (`redis://`, or `rediss://` with TLS) and keeps connecting, with a delay that grows. Never throws: a Redis that is away is no
 * error, its commands fail at once. A command is sent once: one whose answer is lost may have been done or not.
 * The caller ends it with `closeRedis`.
 */
export function openRedis(url: string, log: Log): Redis {
  const where = describeRedis(url);
  let isDown = false;
  const client = new Redis(url, {
    connectTimeout: CONNECT_MS,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // Commands of one turn of the event loop share a write.
    enableAutoPipelining: true,
    keepAlive: 5_000,
    retryStrategy: (times) => Math.min(LONGEST_BACKOFF_MS, 25 * 2 ** Math.min(times, 8)),
  });
  client.on("error", (error: unknown) => {
    if (isDown) return;
    isDown = true;
    log.warn({ redis: where }, `redis: ${messageOf(error)}; goes on without it, trying again`);
  });
  client.on("close", () => {
    if (!isDown) log.warn({ redis: where }, "redis: connection lost; goes on without it");
    isDown = true;
  });
  client.on("ready", () => {
    if (isDown) log.info({ redis: where }, "redis: connected again");
    isDown = false;
  });
  return client;
}

/** Lets go of the connection, whatever is on its way. */
export function closeRedis(client: Redis): void {
  client.removeAllListeners("close");
  client.on("error", () => {});
  client.disconnect();
}
