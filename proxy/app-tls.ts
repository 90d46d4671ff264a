import type { Log } from "../config/lifecycle.ts";
import type { AppTlsPlan } from "../config/plan-types.ts";
import type { Side } from "../config/words.ts";
import { TlsWatch } from "./tls-watch.ts";

/** What a TLS connection to an app is opened with; left out: Node's defaults. */
export interface TlsOptions {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
}

/** How often the same trouble with an app's certificate is said. */
const SAY_MS = 30_000;

/** TLS towards the app of one side: certificates as they are now, and what is wrong with the app's. */
export class AppTls {
  readonly #side: Side;
  readonly #log: Log;
  readonly #serverName: string | undefined;
  readonly #watch: TlsWatch | undefined;
  #options: TlsOptions;
  #said = new Map<string, number>();

  constructor(side: Side, plan: AppTlsPlan | undefined, log: Log) {
    this.#side = side;
    this.#log = log;
    this.#serverName = plan?.serverName;
    this.#watch =
      plan === undefined ? undefined : new TlsWatch({ path: `${side}.tls`, files: plan, log });
    this.#options = this.#read();
    this.#watch?.onChange(() => (this.#options = this.#read()));
  }

  /** Another object whenever it changed. */
  get options(): TlsOptions {
    return this.#options;
  }

  /** A connection failed. What TLS has against it is logged: the client is told no more than a code. */
  failed(error: Error): void {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!isTlsTrouble(code)) return;
    const now = performance.now();
    if (now - (this.#said.get(code) ?? -SAY_MS) < SAY_MS) return;
    this.#said.set(code, now);
    this.#log.warn(
      { side: this.#side, code, reason: error.message },
      `the ${this.#side} app is not reached: its certificate or ours is refused; see ${this.#side}.tls in the plan`,
    );
  }

  stop(): void {
    this.#watch?.stop();
  }

  #read(): TlsOptions {
    const { ca, cert, key } = this.#watch?.current ?? {};
    return {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(this.#serverName === undefined ? {} : { servername: this.#serverName }),
    };
  }
}

/** OpenSSL's names for a chain or a certificate that does not hold, and what Node and the handshake add. */
function isTlsTrouble(code: string): boolean {
  return /CERT|^UNSPECIFIED$|^ERR_(TLS|SSL)_|^UNABLE_TO_|^EPROTO$|^INVALID_(CA|PURPOSE)$|^HOSTNAME_MISMATCH$/.test(
    code,
  );
}
