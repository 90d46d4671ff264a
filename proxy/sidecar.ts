import { CrossfadeError } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { requireTlsFiles } from "../config/tls-files.ts";
import type { Side } from "../config/words.ts";
import { AppTls } from "./app-tls.ts";
import { windowKey } from "../store/control/side-reads.ts";
import { createAskedSide } from "./asked-side.ts";
import { Breaker } from "./breaker.ts";
import { Causality } from "./causality.ts";
import { createClassifier } from "./classify.ts";
import { Exchange } from "./exchange.ts";
import type { ExchangeContext } from "./exchange-context.ts";
import { FailStatic } from "./fail-static.ts";
import { HoldGate } from "./hold.ts";
import type { ClientRequest, ClientResponse } from "./inbound.ts";
import type { FenceWriter, RoutingSource, RoutingState } from "./ports.ts";
import { Refusals } from "./refusals.ts";
import { createServer, createTlsServer } from "./server.ts";
import type { ClientServer, ServerHandlers } from "./server.ts";
import { RunningExchanges } from "./running-exchanges.ts";
import { Shadow } from "./shadow/shadow.ts";
import { defaultLimits } from "./sidecar-limits.ts";
import type { SidecarLimits } from "./sidecar-limits.ts";
import type { SidecarStats } from "./stats-types.ts";
import { HeldRecorder, TrafficRecorder } from "./stats.ts";
import { TlsWatch } from "./tls-watch.ts";
import type { SidecarTracing } from "./trace/ports.ts";
import { Tunnels } from "./tunnels.ts";
import { Upstream } from "./upstream.ts";

export interface SidecarOptions {
  readonly plan: Plan;
  readonly source: RoutingSource;
  readonly fences: FenceWriter;
  readonly log: Log;
  readonly limits?: Partial<SidecarLimits>;
  /** undefined: the plan asks for no traces. */
  readonly tracing?: SidecarTracing | undefined;
  /** Its place among the processes that share the address, from 1; undefined: it has the address for itself. */
  readonly place?: number | undefined;
}

export interface Sidecar {
  readonly url: string;
  stats(): SidecarStats;
  /** Stops accepting, finishes what runs within the limit, lets go of everything. */
  close(): Promise<void>;
}

const REPORT_MS = 1_000;

/** Starts a sidecar. Throws PORT_IN_USE before anything else has started. */
export async function startSidecar(options: SidecarOptions): Promise<Sidecar> {
  requireTlsFiles(options.plan);
  const sidecar = new RunningSidecar(options);
  await sidecar.start();
  return sidecar;
}

class RunningSidecar implements Sidecar {
  readonly #plan: Plan;
  readonly #source: RoutingSource;
  readonly #fences: FenceWriter;
  readonly #log: Log;
  readonly #limits: SidecarLimits;
  readonly #place: number | undefined;
  readonly #tracing: SidecarTracing | undefined;
  readonly #server: ClientServer;
  #clientTls: TlsWatch | undefined;
  readonly #appTls: Readonly<Record<Side, AppTls>>;
  readonly #failStatic: FailStatic;
  readonly #causality: Causality;
  readonly #hold: HoldGate;
  readonly #breaker: Breaker;
  readonly #traffic = new TrafficRecorder();
  readonly #held = new HeldRecorder(() => this.#source.report(this.stats()));
  readonly #shadow: Shadow;
  readonly #context: ExchangeContext;
  readonly #running = new RunningExchanges();
  readonly #tunnels: Tunnels;
  readonly #timers: NodeJS.Timeout[] = [];
  #remembered: RoutingState | undefined;
  #ready = false;
  /** What came in before the routing state was known. */
  #early: (() => void)[] = [];
  #url = "";
  #closing: Promise<void> | undefined;

  constructor({ plan, source, fences, log, limits, place, tracing }: SidecarOptions) {
    this.#place = place;
    this.#tracing = tracing;
    this.#plan = plan;
    this.#source = source;
    this.#fences = fences;
    this.#log = log;
    this.#limits = { ...defaultLimits(plan), ...limits };
    this.#breaker = new Breaker(this.#limits.breaker);
    this.#failStatic = new FailStatic(plan, log, place);
    this.#hold = new HoldGate({
      limitMs: this.#limits.heldMs,
      maxHeld: this.#limits.maxHeld,
      maxHeldBytes: this.#limits.maxHeldBytes,
      onChange: () => this.#acknowledge(),
      record: this.#held,
    });
    this.#appTls = {
      old: new AppTls("old", plan.old.tls, log),
      new: new AppTls("new", plan.new.tls, log),
    };
    this.#causality = this.#createCausality();
    this.#shadow = this.#createShadow();
    this.#context = this.#createContext();
    this.#tunnels = new Tunnels(this.#context);
    this.#server = this.#createServer();
  }

  get url(): string {
    return this.#url;
  }

  async start(): Promise<void> {
    this.#url = await this.#server.bind(this.#plan.proxy.listen, this.#place !== undefined);
    try {
      this.#remembered = await this.#failStatic.load();
      this.#source.onState((state) => this.#follow(state));
      await this.#source.start();
      this.#requireState();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#follow(this.#state());
    this.#source.onPassed(() => {
      this.#causality.passed();
      this.#sweepTraces();
    });
    this.#source.onLink(() => this.#causality.update());
    this.#startTimers();
    this.#ready = true;
    for (const begin of this.#early.splice(0)) begin();
  }

  stats(): SidecarStats {
    const { gate, redis } = this.#causality;
    // The gate is about a follower; new as the authority answers everybody.
    const onNew = (this.#source.state() ?? this.#remembered)?.authority === "new";
    return {
      traffic: this.#traffic.summary(),
      requests: this.#traffic.requests.report(),
      in_flight: this.#running.size,
      in_flight_writes: this.#hold.inFlightWrites,
      streams: this.#tunnels.size,
      fallbacks: this.#traffic.fallbacks,
      held: this.#held.summary(this.#hold.waiting),
      reads: {
        share: onNew ? 1 : gate.share,
        wanted: onNew ? 1 : gate.wanted,
        why: gate.why ?? null,
        breaker: this.#breaker.isOpen ? "open" : "closed",
        breaker_opened: this.#breaker.opened,
        pinned: this.#causality.pinned,
        redis: redis === undefined ? null : (redis.why ?? "ok"),
        unpromised: redis?.unpromised ?? 0,
      },
      shadow: this.#shadow.report(),
      window: this.#traffic.window.report(),
    };
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    const closed = this.#server.close();
    // A connection whose last answer has just gone out is idle now.
    await this.#running.drain(this.#limits.drainMs, () => this.#server.closeIdle());
    this.#tunnels.destroy();
    this.#server.closeAll();
    await closed;
    for (const timer of this.#timers) clearInterval(timer);
    this.#hold.stop();
    this.#held.stop();
    this.#clientTls?.stop();
    await Promise.all([this.#causality.stop(), this.#shadow.stop()]);
    await this.#tracing?.stop();
    await this.#fences.stop();
    await this.#source.stop();
    await Promise.all(
      Object.values(this.#context.upstreams).map(async (upstream) => upstream.destroy()),
    );
    await this.#failStatic.flush();
  }

  #state(): RoutingState {
    const state = this.#source.state() ?? this.#remembered;
    if (state === undefined) throw new Error("routing before the state is known");
    return state;
  }

  #requireState(): void {
    if (this.#source.state() !== undefined) return;
    if (this.#remembered === undefined) {
      throw new CrossfadeError(
        "DATABASE_UNREACHABLE",
        "the control store does not answer, and this sidecar has never run here: which side is the authority is not known",
        { hint: "Start it again when the control database can be reached." },
      );
    }
    this.#log.warn(
      { phase: this.#remembered.phase, epoch: this.#remembered.epoch },
      "the control store does not answer: routing as remembered from the last run",
    );
  }

  /** Everything that depends on the state, in this order: what the hold releases is routed by the new state. */
  #follow(state: RoutingState): void {
    this.#failStatic.save(state);
    this.#causality.update();
    this.#hold.update(state.hold);
    // The gates must not see counts of an earlier stay in this phase or step.
    const entered = this.#traffic.window.enter(windowKey(state));
    if (entered && state.phase === "done") {
      const why = "everything goes to the new app, and nothing is decided here any more";
      this.#log.info({}, `sidecar: the migration is done: ${why}; it can be removed`);
    }
    if (this.#shadow.update(state) || entered) this.#source.report(this.stats());
    this.#acknowledge();
  }

  #acknowledge(): void {
    void this.#source.acknowledge({
      epoch: this.#state().epoch,
      hold: this.#hold.kept,
      inFlightWrites: this.#hold.inFlightWrites,
    });
  }

  #begin(request: ClientRequest, response: ClientResponse, expectsContinue: boolean): void {
    // Left while it waited for the sidecar to start.
    if (response.destroyed) return;
    const exchange = new Exchange(this.#context, request, response, expectsContinue);
    this.#running.add(exchange);
    exchange.start();
  }

  #startTimers(): void {
    const lookMs = Math.min(500, Math.max(20, this.#plan.gates.lagMs / 4));
    this.#timers.push(
      setInterval(() => this.#causality.update(), lookMs),
      setInterval(() => {
        this.#source.report(this.stats());
        this.#traffic.nextInterval();
        this.#sweepTraces();
      }, REPORT_MS),
    );
  }

  #sweepTraces(): void {
    this.#tracing?.sweep((fence) => this.#causality.hasPassed(fence));
  }

  #createServer(): ClientServer {
    const { tls, limits } = this.#plan.proxy;
    const handlers: ServerHandlers = {
      onRequest: (request, response, expectsContinue) => {
        if (this.#ready) this.#begin(request, response, expectsContinue);
        else this.#early.push(() => this.#begin(request, response, expectsContinue));
      },
      onUpgrade: (request, socket, head) => {
        if (this.#ready) this.#tunnels.open(request, socket, head);
        else this.#early.push(() => this.#tunnels.open(request, socket, head));
      },
    };
    if (tls === undefined) return createServer(limits, handlers);
    const { tlsLookMs: lookMs } = this.#limits;
    this.#clientTls = new TlsWatch({ path: "proxy.tls", files: tls, log: this.#log, lookMs });
    return createTlsServer(limits, this.#clientTls, handlers);
  }

  #createCausality(): Causality {
    const { name, proxy, reverse, gates, redis } = this.#plan;
    return new Causality({
      consistency: proxy.consistency,
      client: proxy.client,
      hasReverse: reverse !== undefined,
      lagMs: gates.lagMs,
      source: this.#source,
      writer: this.#fences,
      state: () => this.#state(),
      log: this.#log,
      limit: this.#limits.maxBound,
      cookies: proxy.tokens === "cookie",
      redis:
        proxy.tokens === "redis" && redis !== undefined ? { url: redis, plan: name } : undefined,
    });
  }

  #createShadow(): Shadow {
    const { shadow, old, new: next } = this.#plan;
    return new Shadow({
      apps: { old: old.app, new: next.app },
      tls: this.#appTls,
      sample: shadow.sample,
      rules: shadow,
      redact: shadow.redact,
      state: () => this.#state(),
      source: this.#source,
      writer: this.#fences,
      log: this.#log,
      limits: this.#limits.shadow,
    });
  }

  #createContext(): ExchangeContext {
    const { proxy, canary, gates, operate } = this.#plan;
    const { timeouts, fenceMs } = this.#limits;
    return {
      upstreams: {
        old: new Upstream(this.#plan.old.app, this.#appTls.old, timeouts),
        new: new Upstream(this.#plan.new.app, this.#appTls.new, timeouts),
      },
      timeouts,
      classify: createClassifier(proxy.routes),
      askedSide: createAskedSide(operate.tokens),
      state: () => this.#state(),
      causality: this.#causality,
      hold: this.#hold,
      traffic: this.#traffic,
      breaker: this.#breaker,
      held: this.#held,
      refusals: new Refusals(this.#source),
      shadow: this.#shadow,
      tracing: this.#tracing,
      fallback: canary.fallback,
      headers: proxy.headers,
      fenceMs,
      strictMs: gates.lagMs,
      bodyMs: proxy.limits.bodyTimeoutMs,
      retryAfterMs: this.#plan.maintenance.retryAfterMs,
      onOver: (exchange) => this.#running.over(exchange),
    };
  }
}
