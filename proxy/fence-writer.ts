import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import { directionFrom, otherSide, SIDES } from "../config/words.ts";
import type { Direction, Side } from "../config/words.ts";
import { logChannel, logTable } from "../store/postgres/follow-schema.ts";
import { literal } from "../store/postgres/quote.ts";
import { applicationName, closeSession, openSession } from "../store/postgres/session.ts";
import { FLUSH_COMMIT } from "../store/postgres/trigger-feed.ts";
import type { FenceWriter, Token } from "./ports.ts";

/** A connection that says nothing for so long is taken for dead: it may be black-holed. */
const DEAD_MS = 5_000;

/** Writes fences to the log of either side, each over a connection of its own that is opened when it is needed. */
export class PostgresFenceWriter implements FenceWriter {
  readonly #plan: Plan;
  readonly #instance: string;
  readonly #sessions = new Map<Side, pg.Client>();

  constructor(plan: Plan, instance: string) {
    this.#plan = plan;
    this.#instance = instance;
  }

  async write(side: Side, traces: readonly string[] = []): Promise<Token> {
    const session = this.#sessions.get(side) ?? (await this.#open(side));
    try {
      return await inTime(insertFence(session, side, traces));
    } catch (error) {
      this.#sessions.delete(side);
      void closeSession(session);
      throw error;
    }
  }

  async stop(): Promise<void> {
    const sessions = SIDES.flatMap((side) => this.#sessions.get(side) ?? []);
    this.#sessions.clear();
    await Promise.all(sessions.map(closeSession));
  }

  async #open(side: Side): Promise<pg.Client> {
    const session = await openSession({
      url: this.#plan[side].database,
      name: `${side} database`,
      application: applicationName(this.#plan.name, "fences", this.#instance),
      statementTimeoutMs: DEAD_MS,
    });
    this.#sessions.set(side, session);
    return session;
  }
}

/**
 * The fence and the state it was written under, from one snapshot. Where the state says that this side is the source of no
 * direction any more, nobody reads its log: then there is nothing to wait for, and the newer epoch says whom to follow.
 */
async function insertFence(
  session: pg.Client,
  side: Side,
  traces: readonly string[],
): Promise<Token> {
  const { rows } = await session.query<{ id: string; epoch: string; direction: Direction }>({
    name: `cf_sidecar_fence_${side}`,
    text: `with fence as (insert into ${logTable(side)} (tbl, op, vals) values (0, 'f', $1) returning id)
           select fence.id, s.epoch, s.direction, pg_notify(${literal(logChannel(side))}, ''), ${FLUSH_COMMIT}
           from fence join crossfade.state s on s.side = ${literal(side)}`,
    values: [traces.length === 0 ? null : traces],
  });
  const row = rows[0];
  if (row === undefined)
    throw new CrossfadeError("DATABASE_UNFIT", `the ${side} database has no state row`);
  const epoch = Number(row.epoch);
  if (row.direction === directionFrom(side)) return { side, epoch, fence: BigInt(row.id) };
  return { side: otherSide(side), epoch, fence: 0n };
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  const done = new AbortController();
  const late = sleep(DEAD_MS, undefined, { signal: done.signal }).then(() => {
    throw new CrossfadeError("TIMEOUT", `no answer within ${DEAD_MS} ms`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    done.abort();
  }
}
