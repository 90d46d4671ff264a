import { randomBytes } from "node:crypto";
import type pg from "pg";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Side } from "../config/words.ts";
import type { Listener } from "../store/control/listen.ts";
import type { ControlStore } from "../store/control/open.ts";
import { mappedTables } from "../store/postgres/compile.ts";
import { compilePlan } from "../store/postgres/engine.ts";
import type { TableRef } from "../store/postgres/guard-tables.ts";
import { installFeed, requireFeedKind } from "../store/postgres/install-feed.ts";
import { installWalFeed } from "../store/postgres/install-wal-feed.ts";
import type { CompiledDirection } from "../store/postgres/mapping.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";

/** What everything that touches both sides shares: the plan resolved, and a session for a while. */

/** What the real engine works with. */
export interface Wiring {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly listener: Listener;
  readonly log: Log;
  /** Instead of a session of its own: what `--dry-run` writes down statements with. */
  readonly session?: (
    side: Side,
    work: (client: pg.Client) => Promise<unknown>,
  ) => Promise<unknown>;
}

/** Both directions of the plan against both catalogs; reverse is undefined where the plan has none. */
export interface Compiled {
  readonly forward: CompiledDirection;
  readonly reverse: CompiledDirection | undefined;
  /** Mapped tables of each side: what guards cover. */
  readonly tables: Readonly<Record<Side, readonly TableRef[]>>;
}

/** Resolves the whole plan. Throws with everything that does not hold; changes nothing. */
export async function compileBoth(plan: Plan): Promise<Compiled> {
  const instance = randomBytes(3).toString("hex");
  const forward = await compilePlan(plan, "forward", "control", instance);
  const reverse =
    plan.reverse === undefined
      ? undefined
      : await compilePlan(plan, "reverse", "control", instance);
  const mapped = mappedTables(reverse === undefined ? [forward] : [forward, reverse]);
  const refs = (side: Side) => mapped[side].map(({ schema, name }) => ({ schema, name }));
  return { forward, reverse, tables: { old: refs("old"), new: refs("new") } };
}

/** A session of the controller on a side, closed after `work`. */
export async function onSide<T>(
  { plan, session }: Pick<Wiring, "plan" | "session">,
  side: Side,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  if (session !== undefined) return (await session(side, work)) as T;
  const client = await openSession({
    url: plan[side].database,
    name: sideLabel(side),
    application: applicationName(plan.name, "control", side),
    idleInTransactionMs: 30_000,
  });
  try {
    return await work(client);
  } finally {
    await closeSession(client);
  }
}

/** The log of the new side exists without a reverse mapping too: fences are written to it. */
export async function ensureFeed(
  wiring: Pick<Wiring, "plan" | "session">,
  compiled: Compiled,
  side: Side,
  signal?: AbortSignal,
): Promise<void> {
  const logged = side === "old" ? compiled.forward.logged : (compiled.reverse?.logged ?? []);
  await onSide(wiring, side, async (client) => {
    const { feed } = wiring.plan;
    await requireFeedKind(client, side, feed);
    await (feed === "wal" ? installWalFeed : installFeed)(client, side, logged, signal);
  });
}
