import type { Lsn } from "./lsn.ts";

/**
 * What logical decoding sends, read from the bytes of Postgres' own output plugin (protocol version 1: a transaction
 * arrives whole, after its commit; a big one waits on the server's disk and not in this process).
 */
export type WalMessage =
  | { readonly kind: "begin"; readonly xid: number; readonly committedAtMs: number }
  | { readonly kind: "commit"; readonly end: Lsn }
  | { readonly kind: "relation"; readonly relation: WalRelation }
  | {
      readonly kind: "row";
      readonly oid: number;
      readonly before: Tuple | undefined;
      readonly after: Tuple | undefined;
    }
  | { readonly kind: "truncate"; readonly oids: readonly number[] }
  | { readonly kind: "message"; readonly transactional: boolean; readonly prefix: string }
  | { readonly kind: "other" };

export interface WalRelation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
}

/** One row version; values are read only when asked for, because a row may be large and its key is small. */
export interface Tuple {
  /** Text of the value as its output function gives it; undefined: not sent, because it did not change. */
  value(position: number): string | null | undefined;
}

/** Microseconds from 1970 to 2000, where Postgres' time begins, in ms. */
export const POSTGRES_EPOCH_MS = 946_684_800_000;

/** Reads one message. The buffer may be reused by whoever owns it: tuples are valid until then. */
export function readWalMessage(buffer: Buffer): WalMessage {
  const at = new Cursor(buffer);
  const type = String.fromCharCode(at.int8());
  switch (type) {
    case "B":
      at.skip(8);
      return { kind: "begin", committedAtMs: at.timestampMs(), xid: at.uint32() };
    case "C":
      at.skip(1 + 8);
      return { kind: "commit", end: at.uint64() };
    case "R":
      return { kind: "relation", relation: readRelation(at) };
    case "I":
    case "U":
    case "D":
      return readRow(at);
    case "T": {
      const count = at.uint32();
      at.skip(1);
      return { kind: "truncate", oids: Array.from({ length: count }, () => at.uint32()) };
    }
    case "M": {
      const transactional = (at.int8() & 1) === 1;
      at.skip(8);
      return { kind: "message", transactional, prefix: at.text() };
    }
    default:
      // Origins and types: nothing that a key needs.
      return { kind: "other" };
  }
}

function readRelation(at: Cursor): WalRelation {
  const oid = at.uint32();
  const schema = at.text();
  const name = at.text();
  at.skip(1);
  const columns = Array.from({ length: at.int16() }, () => {
    at.skip(1);
    const column = at.text();
    at.skip(8);
    return column;
  });
  // An empty name is how pg_catalog is written.
  return { oid, schema: schema === "" ? "pg_catalog" : schema, name, columns };
}

/** K and O: the row before (its identity, or all of it); N: the row after. */
function readRow(at: Cursor): WalMessage {
  const oid = at.uint32();
  let before: Tuple | undefined;
  let after: Tuple | undefined;
  while (at.left > 0) {
    if (String.fromCharCode(at.int8()) === "N") after = readTuple(at);
    else before = readTuple(at);
  }
  return { kind: "row", oid, before, after };
}

function readTuple(at: Cursor): Tuple {
  const values = Array.from({ length: at.int16() }, (): Buffer | null | undefined => {
    const type = String.fromCharCode(at.int8());
    if (type === "n") return null;
    if (type === "u") return undefined;
    if (type !== "t") throw new Error(`logical decoding sent a value of the unknown kind ${type}`);
    return at.bytes(at.uint32());
  });
  return {
    value(position) {
      const value = values[position];
      return value == null ? value : value.toString("utf8");
    },
  };
}

class Cursor {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  get left(): number {
    return this.#buffer.length - this.#at;
  }

  skip(bytes: number): void {
    this.#at += bytes;
  }

  int8(): number {
    return this.#buffer.readUInt8(this.#advance(1));
  }

  int16(): number {
    return this.#buffer.readInt16BE(this.#advance(2));
  }

  uint32(): number {
    return this.#buffer.readUInt32BE(this.#advance(4));
  }

  uint64(): bigint {
    return this.#buffer.readBigUInt64BE(this.#advance(8));
  }

  timestampMs(): number {
    return Number(this.#buffer.readBigInt64BE(this.#advance(8))) / 1_000 + POSTGRES_EPOCH_MS;
  }

  bytes(length: number): Buffer {
    const at = this.#advance(length);
    return this.#buffer.subarray(at, at + length);
  }

  text(): string {
    const end = this.#buffer.indexOf(0, this.#at);
    const text = this.#buffer.toString("utf8", this.#at, end);
    this.#at = end + 1;
    return text;
  }

  #advance(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    return at;
  }
}
