import pg from "pg";
import type { Side } from "../../config/words.ts";
import type { Log } from "../../config/lifecycle.ts";
import type { Acknowledgements, FlipDeps } from "../../switchover/flip-types.ts";

/* What a flip needs, and nothing else: processes that tests start and kill by the hundred load it. */

/** What a child process needs to act on a world: it travels as JSON. */
export interface FlipConfig {
  readonly oldUrl: string;
  readonly newUrl: string;
  readonly oldSchema: string;
  readonly newSchema: string;
}

export const TABLES = ["items", "notes"] as const;

const nothing = () => {};
const QUIET: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing };

export function urlOf(config: FlipConfig, side: Side): string {
  return side === "old" ? config.oldUrl : config.newUrl;
}

export function schemaOf(config: FlipConfig, side: Side): string {
  return side === "old" ? config.oldSchema : config.newSchema;
}

/** Real databases, feeds and guards; a fleet without sidecars, whose control store is one table on the old side. */
export function flipDeps(config: FlipConfig, rest: Partial<FlipDeps> = {}): FlipDeps {
  const side = (name: Side) => ({
    url: urlOf(config, name),
    schema: schemaOf(config, name),
    tables: TABLES.map((table) => ({ schema: schemaOf(config, name), name: table })),
  });
  const published = async (text: string, values: readonly unknown[]) => {
    await withApp(config, "old", (client) => client.query(text, [...values]));
  };
  return {
    plan: "test",
    sides: { old: side("old"), new: side("new") },
    ensureFeed: (name) => ensureFeed(config, name),
    lag: async () => 0,
    fleet: {
      hold: async () => ({ missing: [] }),
      publish: async ({ authority, epoch, mustBeNewest }) => {
        await mustBeNewest?.();
        await published(
          "update control_test.authority set side = $1, epoch = $2 where epoch <= $2",
          [authority, epoch],
        );
      },
      listenForEpoch: () => acknowledgedBut([]),
      release: async () => {},
      heldStats: async () => ({ writes_held: 0, hold_ms: { max: 0, p50: 0, p99: 0 }, failed: 0 }),
    },
    log: QUIET,
    ...rest,
  };
}

/** What a fleet hears in which all but these sidecars acknowledge. */
export function acknowledgedBut(missing: readonly string[]): Acknowledgements {
  return { untilAll: async () => ({ missing }), [Symbol.dispose]: nothing };
}

/** A feed that is there is left alone: putting its triggers on again would wait for the app's transactions. */
export async function ensureFeed(config: FlipConfig, side: Side): Promise<void> {
  const installed = await withApp(config, side, async (client) => {
    const { rows } = await client.query(
      "select to_regclass('crossfade.feed') is not null as found",
    );
    return (
      rows[0].found &&
      (await client.query("select from crossfade.feed where side = $1", [side])).rowCount === 1
    );
  });
  if (installed) return;
  const { installTestFeed } = await import("./flip-world.ts");
  await installTestFeed(config, side);
}

/** By connection string and schema. Opening a session takes longer than what most are opened for, and there are thousands. */
const pools = new Map<string, pg.Pool>();

/** A session of an app: the side's schema is its search_path. */
export async function withApp<T>(
  config: FlipConfig,
  side: Side,
  work: (client: pg.ClientBase) => Promise<T>,
): Promise<T> {
  const client = await poolOf(config, side).connect();
  let failed = true;
  try {
    const result = await work(client);
    failed = false;
    return result;
  } finally {
    client.release(failed);
  }
}

function poolOf(config: FlipConfig, side: Side): pg.Pool {
  const key = `${urlOf(config, side)} ${schemaOf(config, side)}`;
  const open = pools.get(key);
  if (open !== undefined) return open;
  const pool = new pg.Pool({
    connectionString: urlOf(config, side),
    application_name: "test app",
    options: `-c search_path=${schemaOf(config, side)}`,
    idleTimeoutMillis: 0,
    allowExitOnIdle: true,
  });
  // A server that a test takes down ends sessions at any time.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  pools.set(key, pool);
  return pool;
}

export async function openApp(config: FlipConfig, side: Side): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: urlOf(config, side),
    application_name: "test app",
  });
  client.on("error", () => {});
  await client.connect();
  await client.query(`set search_path = ${schemaOf(config, side)}`);
  return client;
}
