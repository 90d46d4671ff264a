import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { guardIsClosed } from "../store/postgres/guard.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
  sqlState,
} from "../store/postgres/session.ts";
import { readState } from "../store/postgres/state.ts";
import { within } from "./flip-budget.ts";
import type { Facts, SideFacts } from "./flip-decide.ts";
import { DEFAULT_LIMITS } from "./flip-types.ts";
import type { FlipDeps, FlipFailpoint, FlipLimits, FlipSide } from "./flip-types.ts";
import { failpoint } from "./failpoint.ts";

/** Fixed, for everything outside of the hold's transactions, which set their own from the budget. */
const STATEMENT_MS = 10_000;
const IDLE_IN_TRANSACTION_MS = 5_000;
/** Beyond the server's own time-outs the connection itself is dead. */
const NO_ANSWER_MS = 20_000;

/** What the sessions of a flip need of `FlipDeps`. */
export interface SideDeps extends Pick<FlipDeps, "plan" | "log"> {
  readonly sides: Readonly<Record<Side, Pick<FlipSide, "url">>>;
}

/** Opens a session of its own on a side: never a pool's, never reconnected. The caller closes it. */
export function openFlipSession(deps: SideDeps, side: Side): Promise<pg.Client> {
  return openSession({
    url: deps.sides[side].url,
    name: sideLabel(side),
    application: applicationName(deps.plan, "control", "flip"),
    statementTimeoutMs: STATEMENT_MS,
    idleInTransactionMs: IDLE_IN_TRANSACTION_MS,
    parseTypes: true,
  });
}

/**
 * Sessions that are open already, at most one for each side. Connecting takes some ten milliseconds, and between the decision
 * and the opening no side takes writes. Each serves one piece of work at a time; one whose work failed is closed.
 */
export class KeptSessions {
  readonly #clients: Partial<Record<Side, pg.Client>>;

  constructor(clients: Partial<Record<Side, pg.Client>>) {
    this.#clients = { ...clients };
  }

  take(side: Side): pg.Client | undefined {
    const client = this.#clients[side];
    delete this.#clients[side];
    return client;
  }

  keep(side: Side, client: pg.Client): void {
    this.#clients[side] = client;
  }

  async close(): Promise<void> {
    const clients = SIDES.map((side) => this.take(side)).filter((client) => client !== undefined);
    await Promise.all(clients.map(closeSession));
  }
}

/** What the steps after a decision, and a recovery, work with. */
export interface FinishDeps extends FlipDeps {
  readonly kept: KeptSessions;
}

/**
 * Runs `work`, which can be repeated, on a session of its own, with a limit for a server that no longer answers: on the
 * kept one if there is one, and if that has been lost meanwhile, on a new one, which is kept.
 */
export async function onSide<T>(
  deps: SideDeps & Pick<FinishDeps, "kept">,
  side: Side,
  work: (client: pg.Client) => Promise<T>,
  ms = NO_ANSWER_MS,
): Promise<T> {
  const { kept } = deps;
  const open = kept.take(side);
  if (open !== undefined) {
    try {
      return await onClient(kept, { side, client: open, ms }, work);
    } catch (error) {
      if (!isLost(error)) throw error;
    }
  }
  return onClient(kept, { side, client: await openFlipSession(deps, side), ms }, work);
}

async function onClient<T>(
  kept: KeptSessions,
  { side, client, ms }: { readonly side: Side; readonly client: pg.Client; readonly ms: number },
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  try {
    const result = await within(ms, sideLabel(side), work(client));
    kept.keep(side, client);
    return result;
  } catch (error) {
    await closeSession(client);
    throw error;
  }
}

/** The session is gone, rather than that its work was refused. */
function isLost(error: unknown): boolean {
  if (error instanceof CrossfadeError) return false;
  return /^(08|57P)/.test(sqlState(error) ?? "08");
}

/** What both sides say now. Throws if one does not answer. */
export async function readFacts(clients: Readonly<Record<Side, pg.ClientBase>>): Promise<Facts> {
  const [old, next] = await Promise.all([
    sideFacts(clients.old, "old"),
    sideFacts(clients.new, "new"),
  ]);
  return { old, new: next };
}

async function sideFacts(client: pg.ClientBase, side: Side): Promise<SideFacts> {
  return { row: await readState(client, side), closed: await guardIsClosed(client, side) };
}

/** Opens a session on each side, or none: closes what it opened when one cannot be had. */
export async function openBoth(deps: SideDeps): Promise<Record<Side, pg.Client>> {
  const [old, next] = await Promise.allSettled([
    openFlipSession(deps, "old"),
    openFlipSession(deps, "new"),
  ]);
  if (old.status === "fulfilled" && next.status === "fulfilled")
    return { old: old.value, new: next.value };
  for (const result of [old, next])
    if (result.status === "fulfilled") await closeSession(result.value);
  throw old.status === "rejected" ? old.reason : (next as PromiseRejectedResult).reason;
}

export async function closeBoth(clients: Readonly<Record<Side, pg.Client>>): Promise<void> {
  await Promise.all([closeSession(clients.old), closeSession(clients.new)]);
}

/**
 * Repeats `work` until it succeeds: what follows a decision goes forward, however long it takes. Only STALE ends it (another
 * process took over), and `deps.signal`, with FLIP_UNKNOWN: `recover` goes on from there.
 */
export async function untilDone<T>(
  deps: FlipDeps,
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  for (let pause = 20; ; pause = Math.min(2_000, pause * 2)) {
    try {
      return await work();
    } catch (error) {
      if (isStale(error)) throw error;
      if (deps.signal?.aborted === true) throw interrupted(what, error);
      const level = pause >= 1_000 ? "error" : pause >= 100 ? "warn" : "info";
      deps.log[level](
        { err: error, retryInMs: pause },
        `flip: ${what}: ${messageOf(error)}; trying again`,
      );
      await sleep(pause, undefined, deps.signal === undefined ? {} : { signal: deps.signal }).catch(
        () => {},
      );
    }
  }
}

export function isStale(error: unknown): boolean {
  return error instanceof CrossfadeError && error.code === "STALE";
}

/** A lock that was not had in time: to be asked for again. */
export function isBusy(error: unknown): boolean {
  return ["55P03", "40P01"].includes(sqlState(error) ?? "");
}

export function limitsOf(deps: FlipDeps): FlipLimits {
  return { ...DEFAULT_LIMITS, ...deps.limits };
}

export async function reached(deps: FlipDeps, name: FlipFailpoint): Promise<void> {
  await (deps.failpoint ?? failpoint)(name);
}

function interrupted(what: string, cause: unknown): CrossfadeError {
  return new CrossfadeError(
    "FLIP_UNKNOWN",
    `stopped at "${what}", after the decision: ${messageOf(cause)}`,
    {
      hint: "The next controller goes on from here; no side may take writes until it has.",
      cause,
    },
  );
}
