import pino from "pino";
import pg from "pg";
import type { Plan, MappingPlan, MappingSet } from "../../config/plan-types.ts";
import type { Direction } from "../../config/words.ts";
import { sourceOf } from "../../config/words.ts";
import { Passes } from "../../proxy/mirror/pass.ts";
import { type Engine, openEngine } from "../../store/postgres/engine.ts";
import { initPosition, installFollowTables } from "../../store/postgres/follow-schema.ts";
import { installFeed } from "../../store/postgres/install-feed.ts";
import { installSide } from "../../store/postgres/install-side.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import { TriggerFeed } from "../../store/postgres/trigger-feed.ts";

export const quiet = pino({ level: process.env["CROSSFADE_TEST_LOG"] ?? "silent" });

/** A mapping with everything optional left out. */
export function mapping(
  target: string,
  from: string,
  rest: Partial<Omit<MappingPlan, "from">> & { query?: string; also?: Record<string, string> } = {},
): MappingPlan {
  const { query, also, ...others } = rest;
  return {
    path: `test.${target}`,
    target,
    from: { table: from, query, also: new Map(Object.entries(also ?? {})) },
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
    feed: "trigger",
    forward: set(options.forward),
    reverse: options.reverse === undefined ? undefined : set(options.reverse),
    proxy: {
      listen: { host: "127.0.0.1", port: 0 },
      client: [],
      consistency: "causal",
      tokens: "none",
      routes: [],
      headers: true,
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
      diskFree: undefined,
      throttle: { p99: undefined, replicaLagMs: undefined, active: undefined, wal: undefined },
    },
    verify: { examples: 10, redact: [], continuous: false },
    checks: [],
    shadow: { sample: 0, ignore: [], unordered: [], redact: [] },
    canary: { steps: [], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 },
    flip: { holdMs: 500 },
    gates: {
      verifyMaxAgeMs: 60_000,
      lagMs: 1_000,
      shadow: { samples: 0, mismatch: 0 },
      canary: { samples: 0, errors: 0, p99: 0 },
    },
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
  readonly passes: Passes;
  readonly old: pg.Client;
  readonly new: pg.Client;

  private constructor(
    plan: Plan,
    engine: Engine,
    passes: Passes,
    clients: { old: pg.Client; new: pg.Client },
  ) {
    this.plan = plan;
    this.engine = engine;
    this.passes = passes;
    this.old = clients.old;
    this.new = clients.new;
  }

  static async open(options: WorldOptions, direction: Direction = "forward"): Promise<SyncWorld> {
    const plan = testPlan(options);
    await installWorld(plan, direction);
    const engine = await openEngine({ plan, direction, epoch: 1, role: "test", instance: "a" });
    const passes = new Passes(
      engine.context,
      new TriggerFeed(sourceOf(direction), engine.context.source),
      quiet,
    );
    await passes.start();
    const open = (url: string) =>
      openSession({ url, name: "test", application: "test app", searchPath: "public" });
    return new SyncWorld(plan, engine, passes, {
      old: await open(options.oldUrl),
      new: await open(options.newUrl),
    });
  }

  /** Runs passes until the feed is empty. */
  async drain(): Promise<void> {
    while ((await this.passes.run()) !== undefined);
  }

  async close(): Promise<void> {
    await Promise.all([this.engine.close(), closeSession(this.old), closeSession(this.new)]);
  }
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
    await installFeed(context.source, sourceOf(direction), context.compiled.logged);
    await initPosition(context.target, direction, 1);
  } finally {
    await engine.close();
  }
}
