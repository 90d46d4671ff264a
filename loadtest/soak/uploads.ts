import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";
import type { Trouble } from "./trouble.ts";
import type { UploadFindings } from "./verdict.ts";

const CLIENTS = 2;
const PAUSE_MS = 1_000;
const MB = 1 << 20;
const SIZES = [2 * MB, 8 * MB] as const;
const PIECE = 64 * 1_024;
const ANSWER_MS = 30_000;

/** Uploads through the sidecar, half of them with a length and half without; the app answers their checksum. */
export class Uploads {
  readonly #pool: Pool;
  readonly #trouble: Trouble;
  /** Any part of it is an upload. */
  readonly #noise = randomBytes(SIZES[1] + MB);
  readonly #counts = { uploads: 0, failed: 0, megabytes: 0, mismatched: 0 };
  #stopping = false;
  readonly #loops: Promise<void>[];

  constructor(sidecar: string, trouble: Trouble) {
    this.#trouble = trouble;
    this.#pool = new Pool(sidecar, {
      connections: CLIENTS,
      headersTimeout: ANSWER_MS,
      bodyTimeout: ANSWER_MS,
    });
    this.#loops = Array.from({ length: CLIENTS }, (_, index) => this.#loop(index));
    for (const loop of this.#loops) loop.catch(() => undefined);
  }

  get findings(): UploadFindings {
    return { ...this.#counts, megabytes: Math.round(this.#counts.megabytes) };
  }

  /** Waits for those under way. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
    await this.#pool.close();
  }

  async #loop(index: number): Promise<void> {
    for (let n = 0; !this.#stopping; n += 1) {
      try {
        await this.#upload(index, n % 2 === 0);
      } catch (error) {
        this.#counts.failed += 1;
        this.#trouble.add(`upload ${index}`, error);
      }
      this.#counts.uploads += 1;
      await sleep(PAUSE_MS);
    }
  }

  async #upload(index: number, sized: boolean): Promise<void> {
    const start = Math.floor(Math.random() * MB);
    const length = Math.floor(SIZES[0] + Math.random() * (SIZES[1] - SIZES[0]));
    const content = this.#noise.subarray(start, start + length);
    const { statusCode, body } = await this.#pool.request({
      method: "POST",
      path: "/soak/upload",
      headers: {
        authorization: `Bearer upload-${index}`,
        "content-type": "application/octet-stream",
      },
      body: sized ? content : Readable.from(pieces(content)),
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`answered ${statusCode} ${text.slice(0, 200)}`);
    const answer = JSON.parse(text) as { bytes: number; sha256: string };
    this.#counts.megabytes += length / MB;
    const sha256 = createHash("sha256").update(content).digest("hex");
    if (answer.bytes === length && answer.sha256 === sha256) return;
    this.#counts.mismatched += 1;
    this.#trouble.add(`upload ${index}`, `sent ${length} bytes, ${answer.bytes} arrived whole`);
  }
}

function* pieces(content: Buffer): Iterable<Buffer> {
  for (let at = 0; at < content.length; at += PIECE) yield content.subarray(at, at + PIECE);
}
