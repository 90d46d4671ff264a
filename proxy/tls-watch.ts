import { statSync } from "node:fs";
import type { Log } from "../config/lifecycle.ts";
import type { TlsFiles } from "../config/plan-types.ts";
import { readTls } from "../config/tls-files.ts";
import type { TlsSecrets } from "../config/tls-files.ts";

/** Files are looked at this often: certificates are renewed days before they end, and links to folders send no events. */
const LOOK_MS = 5_000;

export interface TlsWatchOptions {
  /** Where the files stand in the plan. */
  readonly path: string;
  readonly files: TlsFiles;
  readonly log: Log;
  readonly lookMs?: number | undefined;
}

/**
 * Certificates and keys as they are on disk now. New ones count for new connections; those that are there go on. Files that do
 * not hold (half of them is written) leave what was there before, and are said once.
 */
export class TlsWatch {
  readonly #options: TlsWatchOptions;
  readonly #listeners: ((secrets: TlsSecrets) => void)[] = [];
  readonly #timer: NodeJS.Timeout;
  #seen: string;
  #current: TlsSecrets;

  constructor(options: TlsWatchOptions) {
    this.#options = options;
    this.#seen = this.#stamp();
    this.#current = readTls(options.path, options.files).secrets;
    this.#timer = setInterval(() => this.#look(), options.lookMs ?? LOOK_MS);
    this.#timer.unref();
  }

  get current(): TlsSecrets {
    return this.#current;
  }

  onChange(listener: (secrets: TlsSecrets) => void): void {
    this.#listeners.push(listener);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { path, files, log } = this.#options;
    const stamp = this.#stamp();
    if (stamp === this.#seen) return;
    this.#seen = stamp;
    const { secrets, issues } = readTls(path, files);
    if (issues.length > 0) {
      log.warn(
        { problems: issues.map((issue) => `${issue.path}: ${issue.message}`) },
        "tls: the files changed and do not hold; the certificate from before stays in use",
      );
      return;
    }
    this.#current = secrets;
    for (const listener of this.#listeners) listener(secrets);
    log.info({ path }, "tls: new connections use the changed files");
  }

  #stamp(): string {
    const { cert, key, ca } = this.#options.files;
    return [cert, key, ca].map((file) => (file === undefined ? "" : stampOf(file))).join(" ");
  }
}

function stampOf(file: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(file);
    return `${mtimeMs}:${size}:${ino}`;
  } catch {
    return "none";
  }
}
