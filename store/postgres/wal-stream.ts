import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import { describeDatabase } from "../../config/describe.ts";
import { formatLsn, type Lsn } from "./lsn.ts";
import { POSTGRES_EPOCH_MS, readWalMessage, type WalMessage } from "./pgoutput.ts";
import { ident, literal } from "./quote.ts";
import { closeSession, sqlState } from "./session.ts";

export interface WalStreamOptions {
  readonly url: string;
  /** For messages: which database of the plan this is. */
  readonly name: string;
  readonly application: string;
  readonly slot: string;
  readonly publication: string;
  /** Transactions that were committed before it are not sent. */
  readonly from: Lsn;
  readonly onMessage: (message: WalMessage, sent: Sent) => void;
  /** Everything committed before this was sent; between two transactions only. */
  readonly onReached: (lsn: Lsn) => void;
}

/** When the server sent something, by its own clock, ms. */
export interface Sent {
  readonly atMs: number;
}

/** Position is told to the server this often; it also keeps a server from giving up a reader that is busy. */
const STATUS_MS = 250;
/** A server that says nothing is asked for a sign of life after the first, and given up after the second. */
const QUIET = { askMs: 5_000, deadMs: 30_000 } as const;
/** How long a slot may still be held by whoever read it before. */
const IN_USE_MS = 15_000;

/** The parts of pg's connection that its types leave out. */
interface Wire {
  readonly stream: { pause(): void; resume(): void };
  on(event: "copyData", listener: (message: { chunk: Buffer }) => void): void;
  once(event: "replicationStart", listener: () => void): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

/**
 * One reader of a logical replication slot. Nothing is confirmed by itself: `confirm` says what is durable, and only
 * that is ever told to the server. While paused the server keeps what it has to send.
 */
export class WalStream {
  readonly #client: pg.Client;
  readonly #wire: Wire;
  readonly #options: WalStreamOptions;
  readonly #timer: NodeJS.Timeout;
  #confirmed: Lsn;
  #inTransaction = false;
  #paused = false;
  #heardAt = performance.now();
  #failure: Error | undefined;

  private constructor(client: pg.Client, options: WalStreamOptions) {
    this.#client = client;
    this.#options = options;
    this.#confirmed = options.from;
    this.#wire = wireOf(client);
    this.#wire.on("copyData", ({ chunk }) => this.#receive(chunk));
    client.on("error", (error) => this.#fail(error));
    client.on("end", () => this.#fail(new Error("the server ended the connection")));
    this.#timer = setInterval(() => this.#tick(), STATUS_MS);
    this.#timer.unref();
  }

  /** Waits for an earlier reader of the slot to be gone. */
  static async open(options: WalStreamOptions): Promise<WalStream> {
    const deadline = performance.now() + IN_USE_MS;
    for (;;) {
      try {
        return await start(options, (client) => new WalStream(client, options));
      } catch (error) {
        // 55006: in use.
        if (sqlState(error) !== "55006" || performance.now() > deadline) {
          throw new CrossfadeError(
            "DATABASE_UNREACHABLE",
            `${options.name} (${describeDatabase(options.url)}): reading replication slot ${options.slot}: ${messageOf(error)}`,
            { cause: error },
          );
        }
        await sleep(50);
      }
    }
  }

  /** Throws what ended the stream, if it has ended. */
  check(): void {
    if (this.#failure === undefined) return;
    throw new CrossfadeError(
      "DATABASE_UNREACHABLE",
      `${this.#options.name}: the stream of replication slot ${this.#options.slot} ended: ${messageOf(this.#failure)}`,
      { cause: this.#failure },
    );
  }

  /** Everything before `lsn` is durable, or needs not be: the server may forget it. */
  confirm(lsn: Lsn): void {
    if (lsn > this.#confirmed) this.#confirmed = lsn;
  }

  /** Tells the server what was confirmed, now. */
  sendStatus(askForAnswer = false): void {
    if (this.#failure === undefined)
      this.#wire.sendCopyFromChunk(statusMessage(this.#confirmed, askForAnswer));
  }

  /** Reads no further while there is more than can be handled. */
  setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    this.#heardAt = performance.now();
    if (paused) this.#wire.stream.pause();
    else this.#wire.stream.resume();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.sendStatus();
    this.setPaused(false);
    this.#failure ??= new Error("it was closed");
    await closeSession(this.#client);
  }

  #receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#heardAt = performance.now();
    try {
      this.#handle(chunk);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  /** `w`: a message of the output plugin. `k`: how far the server has come, and whether it wants an answer. */
  #handle(chunk: Buffer): void {
    if (chunk[0] === 0x77) {
      const atMs = Number(chunk.readBigInt64BE(17)) / 1_000 + POSTGRES_EPOCH_MS;
      const message = readWalMessage(chunk.subarray(25));
      if (message.kind === "begin") this.#inTransaction = true;
      this.#options.onMessage(message, { atMs });
      if (message.kind === "commit") {
        this.#inTransaction = false;
        this.#options.onReached(message.end);
      }
    } else if (chunk[0] === 0x6b) {
      if (!this.#inTransaction) this.#options.onReached(chunk.readBigUInt64BE(1));
      // Until it is answered the server says nothing more about how far it is.
      if (chunk[17] === 1) this.sendStatus();
    }
  }

  #tick(): void {
    const quietMs = performance.now() - this.#heardAt;
    if (!this.#paused && quietMs > QUIET.deadMs) {
      this.#fail(new Error(`the server said nothing for ${Math.round(quietMs / 1_000)} s`));
      void closeSession(this.#client);
    }
    this.sendStatus(quietMs > QUIET.askMs);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    clearInterval(this.#timer);
  }
}

async function start<T>(options: WalStreamOptions, opened: (client: pg.Client) => T): Promise<T> {
  const client = new pg.Client({
    connectionString: options.url,
    application_name: options.application,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    replication: "database",
  } as pg.ClientConfig);
  client.on("error", () => {});
  try {
    await client.connect();
    // Values are written by this session: the same text as every other session of ours gives.
    await client.query(
      "set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex'; set lc_monetary = 'C'",
    );
    const started = new Promise<void>((resolve) => {
      wireOf(client).once("replicationStart", resolve);
    });
    const result = opened(client);
    const ended = client.query(startSql(options));
    await Promise.race([started, ended]);
    ended.catch((error: unknown) => client.emit("error", error as Error));
    return result;
  } catch (error) {
    void closeSession(client);
    throw error;
  }
}

function startSql({ slot, from, publication }: WalStreamOptions): string {
  return `START_REPLICATION SLOT ${ident(slot)} LOGICAL ${formatLsn(from)} (proto_version '1', publication_names ${literal(ident(publication))}, messages 'true')`;
}

function wireOf(client: pg.Client): Wire {
  return (client as unknown as { readonly connection: Wire }).connection;
}

/** Written, flushed and applied are one and the same: what is durable on the target. */
function statusMessage(lsn: Lsn, askForAnswer: boolean): Buffer {
  const message = Buffer.alloc(34);
  message.writeUInt8(0x72, 0);
  message.writeBigUInt64BE(lsn, 1);
  message.writeBigUInt64BE(lsn, 9);
  message.writeBigUInt64BE(lsn, 17);
  message.writeBigInt64BE(BigInt(Date.now() - POSTGRES_EPOCH_MS) * 1_000n, 25);
  message.writeUInt8(askForAnswer ? 1 : 0, 33);
  return message;
}
