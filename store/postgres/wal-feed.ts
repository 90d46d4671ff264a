import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import type { Feed, FeedBatch, FeedChange, FeedTruncate } from "./feed.ts";
import { logTable } from "./follow-schema.ts";
import { formatLsn, type Lsn } from "./lsn.ts";
import type { LoggedTable } from "./mapping.ts";
import type { Tuple, WalMessage, WalRelation } from "./pgoutput.ts";
import { run, runPrepared } from "./statement.ts";
import { writeFence } from "./trigger-feed.ts";
import { type Sent, WalStream, type WalStreamOptions } from "./wal-stream.ts";

/** The prefix of the message by which the mirror's own transactions are known in the WAL. */
export const MIRROR_MESSAGE = "crossfade.mirror";

/** Changes and fences kept in this process; beyond the first the server keeps the rest, until there are fewer than the second. */
const QUEUE = { pause: 20_000, resume: 10_000 } as const;
/** An idle feed moves its position after so long, or so much WAL, so that the server need not keep what nobody needs. */
const HEARTBEAT = { ms: 5_000, bytes: 16n * 1024n * 1024n } as const;
/** How long a read waits for a transaction to become visible before it says what it waits for. */
const VISIBLE_MS = 2_000;
/** Handled fences are deleted from the log at most this often. */
const SWEEP_MS = 1_000;

type Item =
  | { readonly kind: "begin"; readonly xid: number; readonly age: () => number }
  | { readonly kind: "change"; readonly change: FeedChange | FeedTruncate }
  | { readonly kind: "fence"; readonly id: bigint; readonly traces: readonly string[] }
  | { readonly kind: "end"; lsn: Lsn };

interface WalBatch extends FeedBatch {
  /** Items of the queue it is made of. */
  readonly taken: number;
  readonly end: Lsn | undefined;
  /** Transactions that begin in it. */
  readonly xids: readonly number[];
}

/** A published table: what its rows mean to us. */
type Source =
  | { readonly kind: "table"; readonly logged: LoggedTable; readonly positions: readonly number[] }
  | {
      readonly kind: "log";
      readonly id: number;
      readonly tbl: number;
      readonly op: number;
      readonly vals: number;
    };

export interface WalFeedOptions {
  readonly side: Side;
  /** A session on the side, in READ COMMITTED: the one whose reads must see what was read here. */
  readonly client: pg.Client;
  readonly logged: readonly LoggedTable[];
  readonly stream: Omit<WalStreamOptions, "onMessage" | "onReached">;
  /** Somebody waits for what was read. */
  readonly onFence?: () => void;
  /** A transaction has arrived after a read that found nothing: whoever asks now and then need not wait for the next time. */
  readonly onArrival?: () => void;
}

/**
 * The wal feed: keys of changed rows from logical decoding. A transaction arrives whole and in the order of commits; a
 * big one is handed out in parts, while the position stays before it until its end. A commit reaches the log before
 * other sessions see it (DESIGN §2.3), so a batch is handed out only once its transactions are visible.
 */
export class WalFeed implements Feed {
  readonly side: Side;
  readonly #client: pg.Client;
  readonly #logged: readonly LoggedTable[];
  readonly #onFence: () => void;
  readonly #onArrival: () => void;
  /** The last read found nothing. */
  #isAwaited = false;
  readonly #sources = new Map<number, Source | undefined>();
  #queue: Item[] = [];
  /** Changes and fences in it. */
  #waiting = 0;
  #stream: WalStream | undefined;
  /** The transaction that arrives; undefined between two. Queued with the first of its changes that concerns us. */
  #begin: (Item & { readonly kind: "begin" }) | undefined;
  #isBeginQueued = false;
  /** It is the mirror's own. */
  #ours = false;
  /** Nothing committed before this is waiting anywhere, once the queue is empty. */
  #reached: Lsn;
  #confirmed: Lsn;
  #confirmedAt = performance.now();
  #sweptAt = 0;

  private constructor(options: WalFeedOptions) {
    this.side = options.side;
    this.#client = options.client;
    this.#logged = options.logged;
    this.#onFence = options.onFence ?? (() => {});
    this.#onArrival = options.onArrival ?? (() => {});
    this.#reached = options.stream.from;
    this.#confirmed = options.stream.from;
  }

  static async open(options: WalFeedOptions): Promise<WalFeed> {
    const feed = new WalFeed(options);
    feed.#stream = await WalStream.open({
      ...options.stream,
      onMessage: (message, sent) => feed.#receive(message, sent),
      onReached: (lsn) => feed.#reach(lsn),
    });
    return feed;
  }

  async read(limit: number): Promise<WalBatch> {
    this.#stream?.check();
    const batch = this.#cut(limit);
    this.#isAwaited = batch.size === 0;
    // What is awaited arrives by a socket: whoever asks in a loop must not keep it from being read.
    if (batch.size === 0) await setImmediate();
    if (batch.xids.length > 0) await this.#untilVisible(batch.xids);
    return batch;
  }

  async confirm(batch: FeedBatch): Promise<void> {
    const { taken, end, fence, size } = batch as WalBatch;
    this.#queue.splice(0, taken);
    // A heartbeat takes nothing.
    if (taken > 0) this.#waiting -= size;
    if (this.#waiting < QUEUE.resume) this.#stream?.setPaused(false);
    if (end !== undefined) {
      this.#confirmed = end;
      this.#confirmedAt = performance.now();
      this.#stream?.confirm(end);
    }
    if (fence !== undefined && performance.now() - this.#sweptAt > SWEEP_MS) {
      this.#sweptAt = performance.now();
      // They were read from the WAL: the rows themselves are needed no more, however late another commits.
      await run(this.#client, `delete from ${logTable(this.side)} where id <= $1::bigint`, [
        fence.toString(),
      ]);
    }
  }

  async writeFence(): Promise<bigint> {
    return writeFence(this.#client, this.side);
  }

  async close(): Promise<void> {
    await this.#stream?.close();
  }

  #cut(limit: number): WalBatch {
    const changes: (FeedChange | FeedTruncate)[] = [];
    const xids: number[] = [];
    const traces: string[] = [];
    let taken = 0;
    let fence: bigint | undefined;
    let end: Lsn | undefined;
    let oldestAgeMs = 0;
    let size = 0;
    for (const item of this.#queue) {
      if (item.kind === "change" && size >= limit) break;
      if (item.kind === "begin") {
        xids.push(item.xid);
        oldestAgeMs = Math.max(oldestAgeMs, item.age());
      } else if (item.kind === "end") end = item.lsn;
      else {
        size += 1;
        if (item.kind === "change") changes.push(item.change);
        else {
          if (fence === undefined || item.id > fence) fence = item.id;
          traces.push(...item.traces);
        }
      }
      taken += 1;
    }
    const full = taken < this.#queue.length;
    if (this.#queue.length === 0 && this.#begin === undefined && this.#isHeartbeatDue()) {
      end = this.#reached;
      size = 1;
    }
    const position = end === undefined ? {} : { position: formatLsn(end) };
    return { changes, fence, traces, oldestAgeMs, size, full, taken, end, xids, ...position };
  }

  #isHeartbeatDue(): boolean {
    const ahead = this.#reached - this.#confirmed;
    return (
      ahead > HEARTBEAT.bytes ||
      (ahead > 0n && performance.now() - this.#confirmedAt > HEARTBEAT.ms)
    );
  }

  /** In a statement of its own before any read of the rows: what it sees, later statements of the session see too. */
  async #untilVisible(xids: readonly number[]): Promise<void> {
    const deadline = performance.now() + VISIBLE_MS;
    for (let pause = 1; ; pause = Math.min(20, pause * 2)) {
      const [row] = await runPrepared(this.#client, VISIBLE_SQL, [
        latest(xids),
        `{${xids.join(",")}}`,
      ]);
      if (row?.[0] === "true") return;
      if (performance.now() > deadline) {
        throw new CrossfadeError(
          "TIMEOUT",
          `${this.side} database: a transaction is in the WAL and not visible yet: does a synchronous standby not answer?`,
        );
      }
      await sleep(pause);
    }
  }

  #receive(message: WalMessage, sent: Sent): void {
    switch (message.kind) {
      case "begin": {
        const [arrivedAt, aged] = [performance.now(), sent.atMs - message.committedAtMs];
        this.#ours = false;
        this.#isBeginQueued = false;
        this.#begin = {
          kind: "begin",
          xid: message.xid,
          age: () => Math.max(0, aged) + performance.now() - arrivedAt,
        };
        break;
      }
      case "relation":
        this.#sources.set(message.relation.oid, this.#sourceOf(message.relation));
        break;
      case "message":
        // It is the first that the mirror writes in a transaction: nothing of it has been queued.
        if (message.transactional && message.prefix === MIRROR_MESSAGE) this.#ours = true;
        break;
      case "row":
        if (!this.#ours) this.#row(this.#sources.get(message.oid), message.before, message.after);
        break;
      case "truncate":
        if (!this.#ours) this.#truncated(message.oids);
        break;
      case "commit":
        this.#begin = undefined;
        this.#ours = false;
        break;
      case "other":
        break;
    }
  }

  #reach(lsn: Lsn): void {
    this.#reached = lsn;
    const last = this.#queue.at(-1);
    if (last === undefined) return;
    if (last.kind === "end") last.lsn = lsn;
    else this.#queue.push({ kind: "end", lsn });
    if (!this.#isAwaited) return;
    this.#isAwaited = false;
    this.#onArrival();
  }

  #row(source: Source | undefined, before: Tuple | undefined, after: Tuple | undefined): void {
    if (source === undefined) return;
    if (source.kind === "log") {
      if (after === undefined || before !== undefined) return;
      const op = after.value(source.op);
      if (op === "f") {
        const traces = tracesOf(after.value(source.vals));
        this.#push({ kind: "fence", id: BigInt(after.value(source.id) ?? 0), traces });
      }
      if (op === "t") this.#push(truncate(Number(after.value(source.tbl))));
      return;
    }
    const was = before === undefined ? undefined : valuesOf(source, before);
    const is = after === undefined ? undefined : valuesOf(source, after, before);
    const table = source.logged.number;
    if (was !== undefined && JSON.stringify(was) !== JSON.stringify(is))
      this.#push({ kind: "change", change: { kind: "row", table, values: was } });
    if (is !== undefined)
      this.#push({ kind: "change", change: { kind: "row", table, values: is } });
  }

  #truncated(oids: readonly number[]): void {
    for (const oid of oids) {
      const source = this.#sources.get(oid);
      if (source?.kind === "table") this.#push(truncate(source.logged.number));
    }
  }

  #push(item: Item): void {
    if (this.#begin !== undefined && !this.#isBeginQueued) {
      this.#queue.push(this.#begin);
      this.#isBeginQueued = true;
    }
    this.#queue.push(item);
    this.#waiting += 1;
    if (this.#waiting > QUEUE.pause) this.#stream?.setPaused(true);
    if (item.kind === "fence") this.#onFence();
  }

  #sourceOf({ schema, name, columns }: WalRelation): Source | undefined {
    const at = (column: string) => columns.indexOf(column);
    if (`${schema}.${name}` === logTable(this.side))
      return { kind: "log", id: at("id"), tbl: at("tbl"), op: at("op"), vals: at("vals") };
    const logged = this.#logged.find(({ table }) => table.schema === schema && table.name === name);
    if (logged === undefined) return undefined;
    const positions = logged.columns.map((column) => at(column.name));
    return { kind: "table", logged, positions };
  }
}

/** An array literal whose members need no quotes: hex digits and dashes. */
function tracesOf(vals: string | null | undefined): readonly string[] {
  return vals === null || vals === undefined ? [] : vals.slice(1, -1).split(",");
}

function truncate(table: number): Item {
  return { kind: "change", change: { kind: "truncate", table } };
}

/** A value that is not sent did not change: it stands in the row before, which is sent whenever that is so. */
function valuesOf(
  { logged, positions }: Source & { readonly kind: "table" },
  tuple: Tuple,
  before?: Tuple,
): (string | null)[] {
  return positions.map((position, i) => {
    const value = position === -1 ? undefined : (tuple.value(position) ?? before?.value(position));
    if (value !== undefined) return value;
    const column = logged.columns[i]?.name ?? "";
    throw new Error(
      `the WAL does not hold column ${column} of table ${logged.name}: its publication or replica identity was changed`,
    );
  });
}

/** The last of them to begin: their ids go round, and those of one batch are near each other. */
function latest(xids: readonly number[]): number {
  return xids.reduce((last, xid) => (((xid - last) | 0) > 0 ? xid : last));
}

/** A transaction's whole id. The log has its lower 32 bits; the epoch is that of the nearest id. Taking the snapshot's own epoch is wrong for an id just above its xmax. */
const WHOLE_ID = (xid: string) =>
  `((n + ((${xid} - (n & 4294967295) + 2147483648 + 4294967296) % 4294967296) - 2147483648)::text::xid8)`;

/**
 * Whether every one of these transactions is seen by this statement's snapshot. Where the last of them ($1) is older than all that
 * are running, so are the others: in a backlog nothing needs to be asked of each.
 */
const VISIBLE_SQL = `
select (${WHOLE_ID("$1::bigint")} < pg_snapshot_xmin(pg_current_snapshot()) or (
    select coalesce(bool_and(pg_visible_in_snapshot(${WHOLE_ID("x")}, pg_current_snapshot())), true) from unnest($2::bigint[]) x))::text
from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint n) s`;
