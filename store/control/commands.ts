import type { ErrorCode } from "../../config/errors.ts";
import { channelOf, query } from "./open.ts";
import type { ControlStore } from "./open.ts";
import type { Listener } from "./listen.ts";

export type CommandState = "queued" | "running" | "done" | "failed";

/** A request to the controller that leads. */
export interface Command {
  readonly id: number;
  readonly kind: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** Who asked: a person, or `cli`, `api`. */
  readonly by: string;
  readonly state: CommandState;
  readonly result: unknown;
  readonly error: CommandError | undefined;
  readonly created: Date;
}

export interface CommandError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  /** Of a refusal: every gate of the step, with its value. */
  readonly gates?: readonly unknown[];
}

export type CommandOutcome = { readonly result: unknown } | { readonly error: CommandError };

interface Row {
  id: number;
  kind: string;
  args: Record<string, unknown>;
  by: string;
  state: CommandState;
  result: unknown;
  error: CommandError | null;
  created: Date;
}

const COLUMNS = "id, kind, args, by, state, result, error, created";
const NOTIFY_COMMAND = `pg_notify($1, '{"t":"command"}')`;

/** Queues a command and wakes the controller; returns its id. */
export async function enqueueCommand(
  store: ControlStore,
  command: {
    readonly kind: string;
    readonly args: Readonly<Record<string, unknown>>;
    readonly by: string;
  },
): Promise<number> {
  const rows = await query<{ id: number }>(
    store,
    `with queued as (insert into ${store.table("command")} (kind, args, by) values ($2, $3, $4) returning id)
     select id, ${NOTIFY_COMMAND} from queued`,
    [channelOf(store, "controller"), command.kind, JSON.stringify(command.args), command.by],
  );
  return rows[0]?.id ?? 0;
}

/**
 * Queues a command once for a key, however often it is asked for: a repeat gets the id of the first. Undefined: the key
 * was used for another command.
 */
export async function enqueueOnce(
  store: ControlStore,
  command: {
    readonly kind: string;
    readonly args: Readonly<Record<string, unknown>>;
    readonly by: string;
    readonly key: string;
  },
): Promise<number | undefined> {
  const args = JSON.stringify(command.args);
  const rows = await query<{ id: number }>(
    store,
    `with queued as (
       insert into ${store.table("command")} (kind, args, by, idempotency_key) values ($2, $3, $4, $5)
       on conflict (idempotency_key) where idempotency_key is not null do nothing returning id)
     select id, ${NOTIFY_COMMAND} from queued`,
    [channelOf(store, "controller"), command.kind, args, command.by, command.key],
  );
  if (rows[0] !== undefined) return rows[0].id;
  const before = await query<{ id: number; same: boolean }>(
    store,
    `select id, kind = $2 and args = $3::jsonb as same from ${store.table("command")} where idempotency_key = $1`,
    [command.key, command.kind, args],
  );
  // Gone again: whoever asked first took it back before it began.
  if (before[0] === undefined) return enqueueOnce(store, command);
  return before[0].same ? before[0].id : undefined;
}

/** The last commands, newest first. */
export async function readCommands(store: ControlStore, limit = 50): Promise<Command[]> {
  const rows = await query<Row>(
    store,
    `select ${COLUMNS} from ${store.table("command")} order by id desc limit $1`,
    [limit],
  );
  return rows.map(toCommand);
}

/** Takes the oldest queued command of these kinds (only this one), or undefined. Only the controller that leads calls this. */
export async function claimCommand(
  store: ControlStore,
  kinds: readonly string[],
  only?: number,
): Promise<Command | undefined> {
  const rows = await query<Row>(
    store,
    `update ${store.table("command")} set state = 'running', started = clock_timestamp()
     where id = (select id from ${store.table("command")} where state = 'queued' and kind = any($1)
                 and ($2::bigint is null or id = $2) order by id limit 1 for update skip locked)
     returning ${COLUMNS}`,
    [kinds, only ?? null],
  );
  return rows[0] === undefined ? undefined : toCommand(rows[0]);
}

/** Whether a command of one of these kinds waits for its turn. */
export async function isQueued(store: ControlStore, kinds: readonly string[]): Promise<boolean> {
  const rows = await query(
    store,
    `select 1 from ${store.table("command")} where state = 'queued' and kind = any($1) limit 1`,
    [kinds],
  );
  return rows.length > 0;
}

/** Whether somebody has asked to go back without new. */
export async function isLossQueued(store: ControlStore): Promise<boolean> {
  const rows = await query(
    store,
    `select 1 from ${store.table("command")} where state = 'queued' and kind = 'rollback' and args->>'loseUnmirrored' = 'true' limit 1`,
  );
  return rows.length > 0;
}

/** Records how a running command ended and wakes whoever waits for it. False if it was not running any more. */
export async function finishCommand(
  store: ControlStore,
  id: number,
  outcome: CommandOutcome,
): Promise<boolean> {
  const failed = "error" in outcome;
  const rows = await query(
    store,
    `with finished as (
       update ${store.table("command")} set state = $3, result = $4, error = $5, finished = clock_timestamp()
       where id = $2 and state = 'running' returning id)
     select ${NOTIFY_COMMAND} from finished`,
    [
      channelOf(store, "controller"),
      id,
      failed ? "failed" : "done",
      failed ? null : JSON.stringify(outcome.result ?? null),
      failed ? JSON.stringify(outcome.error) : null,
    ],
  );
  return rows.length === 1;
}

/**
 * Fails the commands that another controller left running: only a controller that has just taken the lead may call this.
 * They are not repeated: whoever asked sees where the migration stands and asks again. Returns their ids in ascending order.
 */
export async function failOrphanedCommands(
  store: ControlStore,
  error: CommandError,
): Promise<number[]> {
  const rows = await query<{ id: number }>(
    store,
    `with finished as (
       update ${store.table("command")} set state = 'failed', error = $2, finished = clock_timestamp()
       where state = 'running' returning id)
     select id, ${NOTIFY_COMMAND} from finished order by id`,
    [channelOf(store, "controller"), JSON.stringify(error)],
  );
  return rows.map((row) => row.id);
}

/** Takes a command back that nobody has started. False if it was started. */
export async function withdrawCommand(store: ControlStore, id: number): Promise<boolean> {
  const rows = await query(
    store,
    `delete from ${store.table("command")} where id = $1 and state = 'queued' returning id`,
    [id],
  );
  return rows.length === 1;
}

export async function readCommand(store: ControlStore, id: number): Promise<Command | undefined> {
  const rows = await query<Row>(
    store,
    `select ${COLUMNS} from ${store.table("command")} where id = $1`,
    [id],
  );
  return rows[0] === undefined ? undefined : toCommand(rows[0]);
}

/** Resolves with the command once it is done or failed; by notification, and by looking twice a second. Rejects on abort. */
export async function waitForCommand(
  store: ControlStore,
  listener: Listener,
  id: number,
  signal?: AbortSignal,
): Promise<Command> {
  for (;;) {
    signal?.throwIfAborted();
    const news = listener.next((message) => message.t === "command", 500, signal);
    const command = await readCommand(store, id);
    if (command !== undefined && (command.state === "done" || command.state === "failed"))
      return command;
    await news;
  }
}

function toCommand(row: Row): Command {
  return { ...row, error: row.error ?? undefined };
}
