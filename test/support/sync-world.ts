import { backupPlan } from "../../config/backup.ts";
import pino from "pino";
import pg from "pg";
import { NO_POLICY } from "../../config/policy.ts";
import type { Plan, MappingPlan, MappingSet } from "../../config/plan-types.ts";
import type { Direction } from "../../config/words.ts";
import { sourceOf } from "../../config/words.ts";
import { Passes } from "../../proxy/mirror/pass.ts";
import { type Engine, openEngine } from "../../store/postgres/engine.ts";
import { initPosition, installFollowTables } from "../../store/postgres/follow-schema.ts";
import { installFeed } from "../../store/postgres/install-feed.ts";
import { installSide } from "../../store/postgres/install-side.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import type { Feed } from "../../store/postgres/feed.ts";
import { installWalFeed } from "../../store/postgres/install-wal-feed.ts";
import type { SyncContext } from "../../store/postgres/sync.ts";
import { openFeed } from "../../proxy/mirror/open-feed.ts";
import { dropSlot } from "../../store/postgres/wal-slot.ts";
import { testedFeed } from "./tested-feed.ts";

export const quiet = pino({ level: process.env["CROSSFADE_TEST_LOG"] ?? "silent" });

/** A mapping with everything optional left out. */
export function mapping(
  target: string,
  from: string,
  rest: Partial<Omit<MappingPlan, "from">> & {
    query?: string;
    key?: readonly string[];
    also?: Record<string, string>;
  } = {},
): MappingPlan {
  const { query, key, also, ...others } = rest;
  return {
    path: `test.${target}`,
    target,
    from: { table: from, query, key, also: new Map(Object.entries(also ?? {})) },
    where: undefined,
    own: undefined,
    set: new Map(),
    reject: new Map(),
    ...others,
  };
}

export interface WorldOptions {
  readonly oldUrl: string;
  readonly newUrl: string;
  readonly oldSchema?: string;
  readonly newSchema?: string;
  readonly forward: readonly MappingPlan[];
  readonly reverse?: readonly MappingPlan[];
  readonly feed?: Plan["feed"];
}

/** As much of a plan as the store needs. */
export function testPlan(options: WorldOptions): Plan {
  const set = (mappings: readonly MappingPlan[]): MappingSet => ({ kind: "tables", mappings });
  return {
    name: "test",
    file: "test.yaml",
    old: {
      database: options.oldUrl,
      schema: options.oldSchema ?? "public",
      app: "http://127.0.0.1:1",
    },
    new: {
      database: options.newUrl,
      schema: options.newSchema ?? "public",
      app: "http://127.0.0.1:1",
    },
    control: { database: options.oldUrl, schema: "crossfade" },
    redis: undefined,
    feed: options.feed ?? testedFeed(),
    wal: { retainBytes: 10e9 },
    forward: set(options.forward),
    reverse: options.reverse === undefined ? undefined : set(options.reverse),
    proxy: {
      listen: { host: "127.0.0.1", port: 0 },
      client: [],
      consistency: "causal",
      tokens: "none",
      routes: [],
      headers: true,
      processes: 1,
      state: "/nowhere/.crossfade",
      limits: {
        headerBytes: 65_536,
        headerTimeoutMs: 60_000,
        bodyTimeoutMs: 60_000,
        idleTimeoutMs: 72_000,
        connections: 50_000,
      },
      appTimeouts: { connectMs: 5_000, headMs: 300_000 },
    },
    backfill: {
      workers: 1,
      chunk: 50,
      targetMs: 500,
      defer: [],
      diskFreeBytes: undefined,
      throttle: { p99: undefined, replicaLagMs: undefined, active: undefined, wal: undefined },
    },
    verify: { examples: 10, redact: [], continuous: false },
    checks: [],
    shadow: { sample: 0, ignore: [], unordered: [], redact: [] },
    canary: { steps: [], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 },
    maintenance: { message: "back soon", retryAfterMs: 60_000 },
    // A loaded machine must not undo a flip for its time, nor keep a gate shut for a moment of lag.
    flip: { holdMs: 10_000, held: { writes: 10_000, bytes: 1 << 26, ms: 40_000 } },
    gates: {
      verifyMaxAgeMs: 600_000,
      lagMs: 20_000,
      shadow: { samples: 0, mismatch: 0 },
      canary: { samples: 0, errors: 0, p99: 0 },
    },
    policy: NO_POLICY,
    backup: backupPlan("/nowhere/crossfade.yaml", undefined),
    approvals: {},
    operate: { listen: { host: "127.0.0.1", port: 0 }, tokens: undefined },
    notify: [],
    notActing: [],
  };
}

/** Both sides installed and one direction followed by hand: tests decide when a pass runs. */
export class SyncWorld {
  readonly plan: Plan;
  readonly engine: Engine;
  readonly feed: Feed;
  readonly passes: Passes;
  readonly old: pg.Client;
  readonly new: pg.Client;

  private constructor(
    plan: Plan,
    engine: Engine,
    feed: Feed,
    passes: Passes,
    clients: { old: pg.Client; new: pg.Client },
  ) {
    this.plan = plan;
    this.engine = engine;
    this.feed = feed;
    this.passes = passes;
    this.old = clients.old;
    this.new = clients.new;
  }

  static async open(options: WorldOptions, direction: Direction = "forward"): Promise<SyncWorld> {
    const plan = testPlan(options);
    await installWorld(plan, direction);
    const engine = await openEngine({ plan, direction, epoch: 1, role: "test", instance: "a" });
    const feed = await openTestFeed(plan, engine.context);
    const passes = new Passes(engine.context, feed, quiet);
    await passes.start();
    const open = (url: string) =>
      openSession({ url, name: "test", application: "test app", searchPath: "public" });
    return new SyncWorld(plan, engine, feed, passes, {
      old: await open(options.oldUrl),
      new: await open(options.newUrl),
    });
  }

  /** Runs passes until everything committed before the call was read: what comes from the WAL takes a moment to arrive. */
  async drain(): Promise<void> {
    if (this.plan.feed === "wal") {
      const fence = await this.feed.writeFence();
      for (let read = 0n; read < fence;) {
        if ((await this.passes.run()) === undefined) await new Promise((r) => setTimeout(r, 2));
        read = await this.#fenceRead();
      }
    }
    while ((await this.passes.run()) !== undefined);
  }

  async #fenceRead(): Promise<bigint> {
    const { context } = this.engine;
    const { rows } = await context.target.query<{ read: string }>(
      "select read::text from crossfade.position where direction = $1",
      [context.compiled.direction],
    );
    return BigInt(rows[0]?.read ?? 0);
  }

  async close(): Promise<void> {
    await this.feed.close();
    // A slot that is left behind holds back the catalogs of every other test on the server.
    const { source, compiled } = this.engine.context;
    await dropSlot(source, compiled.source).catch(() => {});
    await Promise.all([this.engine.close(), closeSession(this.old), closeSession(this.new)]);
  }
}

/** The feed as the mirror opens it; a gap fails the test. */
export function openTestFeed(plan: Plan, context: SyncContext): Promise<Feed> {
  return openFeed({
    plan,
    context,
    application: "test feed",
    wake: () => {},
    onGap: async (gap) => {
      throw new Error(`a gap: ${gap}`);
    },
    pause: async () => {},
  });
}

/** Side rows, feed and position of one direction; guards are left out. */
export async function installWorld(plan: Plan, direction: Direction): Promise<void> {
  for (const side of ["old", "new"] as const) {
    const client = await openSession({
      url: plan[side].database,
      name: side,
      application: "test install",
    });
    try {
      await installSide(client, { side, plan: plan.name });
      await installFollowTables(client);
    } finally {
      await closeSession(client);
    }
  }
  const engine = await openEngine({ plan, direction, epoch: 1, role: "install", instance: "a" });
  try {
    const { context } = engine;
    if (direction === "reverse") {
      await context.target.query("update crossfade.state set direction = 'reverse'");
      await context.source.query("update crossfade.state set direction = 'reverse'");
    }
    const install = plan.feed === "wal" ? installWalFeed : installFeed;
    await install(context.source, sourceOf(direction), context.compiled.logged);
    await initPosition(context.target, direction, 1);
  } finally {
    await engine.close();
  }
}

/** A mirror that runs beside the test, for what waits for fences. Returns how to stop it. */
export function mirrorBeside(world: SyncWorld): () => Promise<void> {
  let running = true;
  const mirror = (async () => {
    while (running) {
      await world.drain();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  return async () => {
    running = false;
    await mirror;
  };
}
