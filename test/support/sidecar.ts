import { backupPlan } from "../../config/backup.ts";
import { mkdtemp } from "node:fs/promises";
import http from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Log } from "../../config/lifecycle.ts";
import { NO_POLICY } from "../../config/policy.ts";
import type { AppTlsPlan, Plan, ProxyPlan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import { Emitter } from "../../proxy/emitter.ts";
import type {
  Acknowledgement,
  FenceWriter,
  Passed,
  RoutingSource,
  RoutingState,
  Token,
} from "../../proxy/ports.ts";
import type { SidecarLimits } from "../../proxy/sidecar-limits.ts";
import { startSidecar } from "../../proxy/sidecar.ts";
import type { Sidecar } from "../../proxy/sidecar.ts";
import type { SidecarStats } from "../../proxy/stats-types.ts";

export const quietLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

export const STATE: RoutingState = {
  phase: "shadow",
  epoch: 1,
  authority: "old",
  readsNew: 0,
  salt: "salt",
  hold: null,
  lagging: false,
  maintenance: null,
};

/** Routing state moved by the test's hand. */
export class HandSource implements RoutingSource {
  readonly acknowledged: Acknowledgement[] = [];
  readonly #states = new Emitter<RoutingState>();
  readonly #passings = new Emitter<void>();
  readonly #links = new Emitter<void>();
  #state: RoutingState | undefined;
  #passed: Passed = { epoch: 0, fence: 0n };
  #connected = true;
  #alone = true;
  #inStep = true;
  #heard = true;
  #pledges = 0;
  reported: SidecarStats | undefined;
  looks = 0;
  /** What a look at the control store finds. */
  onLook: () => unknown = () => {};

  constructor(state: RoutingState | undefined) {
    this.#state = state;
  }

  state = () => this.#state;
  passed = () => this.#passed;
  connected = () => this.#connected;
  alone = () => this.#alone;
  inStep = () => this.#inStep;
  breaks = () => 0;
  pledge = () => ++this.#pledges;
  heard = () => this.#heard;
  untilHeard = async () => this.#heard;
  look = async (): Promise<void> => {
    this.looks += 1;
    await this.onLook();
  };
  onState = (listener: (state: RoutingState) => void) => this.#states.on(listener);
  onPassed = (listener: () => void) => this.#passings.on(listener);
  onLink = (listener: () => void) => this.#links.on(listener);
  report = (stats: SidecarStats) => {
    this.reported = stats;
  };

  async acknowledge(acknowledgement: Acknowledgement): Promise<void> {
    this.acknowledged.push(acknowledgement);
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  set(change: Partial<RoutingState>): void {
    this.#state = { ...(this.#state ?? STATE), ...change };
    this.#states.emit(this.#state);
  }

  hold(attempt: number, ms: number): void {
    this.set({ hold: { attempt, deadline: performance.now() + ms } });
  }

  pass(fence: bigint, epoch = this.#state?.epoch ?? 0): void {
    this.#passed = { epoch, fence };
    this.#passings.emit();
  }

  link(link: { connected?: boolean; alone?: boolean; inStep?: boolean; heard?: boolean }): void {
    this.#heard = link.heard ?? this.#heard;
    this.#connected = link.connected ?? this.#connected;
    this.#alone = link.alone ?? this.#alone;
    this.#inStep = link.inStep ?? this.#inStep;
    this.#links.emit();
  }
}

/** A log of fences in memory. With `follow` a mirror passes each one as soon as it is written. */
export class HandFences implements FenceWriter {
  readonly source: HandSource;
  follow = true;
  written = 0n;
  writes = 0;
  /** While set, writes wait. */
  gate: Promise<void> | undefined;
  fail = false;

  constructor(source: HandSource) {
    this.source = source;
  }

  async write(side: Side): Promise<Token> {
    this.writes += 1;
    await this.gate;
    if (this.fail) throw new Error("the database is away");
    const { epoch, authority } = this.source.state() ?? STATE;
    if (side !== authority) return { side: authority, epoch, fence: 0n };
    const fence = ++this.written;
    if (this.follow) queueMicrotask(() => this.source.pass(fence));
    return { side, epoch, fence };
  }

  async stop(): Promise<void> {}
}

/** What an app saw of one request. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface TestApp {
  readonly url: string;
  readonly server: http.Server;
  /** Requests that arrived whole, in order. */
  readonly seen: Seen[];
}

export type AppHandler = (request: IncomingMessage, response: ServerResponse) => unknown;

/** A real HTTP server. Without `handler` it records the request and answers with its name. */
export async function startApp(name: string, handler?: AppHandler): Promise<TestApp> {
  const seen: Seen[] = [];
  const answer = handler ?? record;
  const server = http.createServer((request, response) => {
    // The client may leave while the app reads or waits.
    Promise.resolve(answer(request, response)).catch(() => response.destroy());
  });
  async function record(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url = "", rawHeaders, headers } = request;
    seen.push({ method, url, rawHeaders, headers, body: Buffer.concat(chunks) });
    response.end(name);
  }
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server, seen };
}

export interface TestSidecar {
  readonly url: string;
  readonly port: number;
  readonly sidecar: Sidecar;
  readonly source: HandSource;
  readonly fences: HandFences;
  readonly plan: Plan;
}

export interface TestSidecarOptions {
  readonly old?: TestApp | string;
  readonly new?: TestApp | string;
  readonly state?: Partial<RoutingState> | undefined;
  readonly proxy?: Partial<ProxyPlan>;
  /** TLS towards both apps. */
  readonly appTls?: AppTlsPlan;
  readonly log?: Log;
  readonly shadow?: Partial<Plan["shadow"]>;
  readonly holdMs?: number;
  readonly lagMs?: number;
  readonly operatorTokens?: string;
  /** Causal tokens travel in it. */
  readonly redis?: string;
  readonly folder?: string;
  readonly limits?: Partial<SidecarLimits>;
  readonly source?: HandSource;
}

/** A sidecar in front of two apps, with a hand-driven source; the test's end closes it. */
export async function startTestSidecar(options: TestSidecarOptions = {}): Promise<TestSidecar> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "crossfade-proxy-")));
  const plan = makePlan(folder, options);
  const source = options.source ?? new HandSource({ ...STATE, ...options.state });
  const fences = new HandFences(source);
  const limits = { drainMs: 200, ...options.limits };
  const sidecar = await startSidecar({
    plan,
    source,
    fences,
    log: options.log ?? quietLog,
    limits,
  });
  onTestFinished(() => sidecar.close());
  return {
    url: sidecar.url,
    port: Number(new URL(sidecar.url).port),
    sidecar,
    source,
    fences,
    plan,
  };
}

/** Nothing listens there. */
export const NOWHERE = "http://127.0.0.1:9";

export function makePlan(folder: string, options: TestSidecarOptions): Plan {
  const app = (side: TestApp | string | undefined) =>
    typeof side === "object" ? side.url : (side ?? NOWHERE);
  const database = "postgres://nobody@127.0.0.1:9/none";
  return {
    name: "test",
    file: join(folder, "crossfade.yaml"),
    old: { database, schema: "public", app: app(options.old), tls: options.appTls },
    new: { database, schema: "public", app: app(options.new), tls: options.appTls },
    control: { database, schema: "crossfade" },
    redis: options.redis,
    feed: "trigger",
    wal: { retainBytes: 10e9 },
    forward: { kind: "identity" },
    reverse: { kind: "identity" },
    proxy: {
      listen: { host: "127.0.0.1", port: 0 },
      client: [
        { by: "header", name: "authorization" },
        { by: "cookie", name: "sid" },
        { by: "ip" },
      ],
      consistency: "causal",
      tokens: options.redis === undefined ? "none" : "redis",
      routes: [],
      headers: true,
      processes: 1,
      state: join(folder, ".crossfade"),
      limits: {
        headerBytes: 65_536,
        headerTimeoutMs: 60_000,
        bodyTimeoutMs: 60_000,
        idleTimeoutMs: 72_000,
        connections: 50_000,
      },
      appTimeouts: { connectMs: 5_000, headMs: 300_000 },
      ...options.proxy,
    },
    backfill: {
      workers: 1,
      chunk: 1_000,
      targetMs: 500,
      defer: [],
      diskFreeBytes: undefined,
      throttle: { p99: undefined, replicaLagMs: undefined, active: undefined, wal: undefined },
    },
    verify: { examples: 10, redact: [], continuous: false },
    checks: [],
    shadow: { sample: 0, ignore: [], unordered: [], redact: [], ...options.shadow },
    canary: { steps: [0.5], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 },
    maintenance: { message: "back soon", retryAfterMs: 60_000 },
    flip: {
      holdMs: options.holdMs ?? 500,
      // Here it ends when a test says so.
      held: { writes: 10_000, bytes: 1 << 26, ms: 60_000 },
    },
    gates: {
      verifyMaxAgeMs: 1000,
      lagMs: options.lagMs ?? 60_000,
      shadow: { samples: 1, mismatch: 0 },
      canary: { samples: 1, errors: 0, p99: 1 },
    },
    policy: NO_POLICY,
    backup: backupPlan("/nowhere/crossfade.yaml", undefined),
    approvals: {},
    operate: { listen: { host: "127.0.0.1", port: 0 }, tokens: options.operatorTokens },
    notify: [],
    notActing: [],
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/** One request on a connection of its own. */
export async function send(
  url: string,
  options: {
    method?: string;
    body?: string | Buffer | undefined;
    headers?: Record<string, string>;
  } = {},
): Promise<Answer> {
  const { method = "GET", body, headers = {} } = options;
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
    const request = http.request(
      url,
      { method, headers: { ...headers, ...length }, agent: false },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () =>
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}
