import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { differences } from "./compare.ts";
import type { CompareRules, Difference } from "./compare.ts";
import { parseJson } from "./json.ts";

/** Answers up to this size are compared as JSON; larger ones by hash, in constant memory. */
export const MAX_BODY_BYTES = 256 * 1024;

/** What of an app's answer is compared. */
export interface Answer {
  readonly status: number;
  readonly isJson: boolean;
  /** Decoded content; undefined where it was too large to keep. */
  readonly text: string | undefined;
  readonly hash: string;
  /** Content coding, where the hash is of coded bytes. */
  readonly coding: string | undefined;
}

/** What asking gave. `none`: no whole answer came; `unreadable`: its content cannot be decoded here. */
export type Asked = Answer | "none" | "unreadable";

/** Header fields that say how to read an answer. */
export interface AnswerHead {
  readonly status: number;
  readonly type: string | undefined;
  readonly coding: string | undefined;
}

/** Takes the parts of an answer as they pass. */
export class AnswerBuffer {
  readonly #head: AnswerHead;
  #parts: Buffer[] = [];
  #bytes = 0;
  /** Instead of the parts, once they are too many. */
  #hash: Hash | undefined;

  constructor(head: AnswerHead) {
    this.#head = head;
  }

  add(part: Buffer): void {
    this.#bytes += part.length;
    if (this.#hash !== undefined) {
      this.#hash.update(part);
      return;
    }
    // A copy: a small part of a large buffer would keep all of it.
    this.#parts.push(Buffer.from(part));
    if (this.#bytes > MAX_BODY_BYTES) this.#startHash();
  }

  /** undefined: it cannot be read. */
  async finish(): Promise<Answer | undefined> {
    const { status, type, coding } = this.#head;
    const isJson = type !== undefined && /^[^;]*[/+]json\b/i.test(type);
    if (this.#hash !== undefined)
      return { status, isJson, text: undefined, hash: this.#hash.digest("hex"), coding };
    const bytes = await decode(Buffer.concat(this.#parts), coding);
    if (bytes === undefined) return undefined;
    const hash = createHash("sha256").update(bytes).digest("hex");
    const text = isJson ? bytes.toString("utf8") : undefined;
    return { status, isJson, text, hash, coding: undefined };
  }

  #startHash(): void {
    this.#hash = createHash("sha256");
    for (const part of this.#parts) this.#hash.update(part);
    this.#parts = [];
  }
}

const DECODERS: Readonly<
  Record<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>>
> = {
  gzip: promisify(zlib.gunzip),
  "x-gzip": promisify(zlib.gunzip),
  deflate: promisify(zlib.inflate),
  br: promisify(zlib.brotliDecompress),
  zstd: promisify(zlib.zstdDecompress),
};

async function decode(bytes: Buffer, coding: string | undefined): Promise<Buffer | undefined> {
  const name = coding?.trim().toLowerCase() ?? "identity";
  if (name === "identity" || bytes.length === 0) return bytes;
  // A small answer can unpack to a huge one.
  return DECODERS[name]?.(bytes, { maxOutputLength: 8 * MAX_BODY_BYTES }).catch(() => undefined);
}

const STATUS = "(status)";
const BODY = "(body)";
const NO_ANSWER = "(no answer)";

/**
 * Where the answers of both sides differ; undefined where that cannot be said. That new gives none where old does is a
 * difference. Content is compared only where the status is the same.
 */
export function compareAnswers(
  old: Asked,
  next: Asked,
  rules: CompareRules,
): Difference[] | undefined {
  if (typeof old === "string" || next === "unreadable") return undefined;
  if (next === "none") return [whole(NO_ANSWER, old.status, "nothing")];
  if (old.status !== next.status) return [whole(STATUS, old.status, next.status)];
  if (old.hash === next.hash && old.coding === next.coding) return [];
  if (old.isJson && next.isJson) return compareJson(old, next, rules);
  // Coded bytes may differ where their content does not.
  if (old.coding !== undefined || next.coding !== undefined) return undefined;
  return [whole(BODY, `sha256 ${old.hash}`, `sha256 ${next.hash}`)];
}

function compareJson(old: Answer, next: Answer, rules: CompareRules): Difference[] | undefined {
  if (old.text === undefined || next.text === undefined) return undefined;
  const [before, after] = [parsed(old.text), parsed(next.text)];
  // What calls itself JSON and is not is compared like any other content.
  if (before === undefined || after === undefined) {
    return [whole(BODY, `sha256 ${old.hash}`, `sha256 ${next.hash}`)];
  }
  return differences(before.json, after.json, rules);
}

function parsed(text: string): { readonly json: unknown } | undefined {
  try {
    return { json: parseJson(text) };
  } catch {
    return undefined;
  }
}

function whole(path: string, old: unknown, next: unknown): Difference {
  return { path, segments: [], old, new: next };
}
