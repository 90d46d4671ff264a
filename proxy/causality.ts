import type { Log } from "../config/lifecycle.ts";
import type { ClientSource } from "../config/plan-types.ts";
import type { Consistency } from "../config/words.ts";
import { CausalCookies, standingOf } from "./causal-cookies.ts";
import type { CarriedToken, CausalCookie } from "./causal-cookies.ts";
import { bucketOf, ClientIdentities } from "./client-identity.ts";
import type { Identity } from "./client-identity.ts";
import { FenceLine } from "./fences.ts";
import type { Fence, FenceView } from "./fences.ts";
import type { ClientRequest } from "./inbound.ts";
import type { FenceWriter, RoutingSource, RoutingState } from "./ports.ts";
import { ReadGate } from "./read-gate.ts";
import type { GateFacts } from "./read-gate.ts";
import { fenceFor, isMirrored } from "./route.ts";
import type { FenceNeed, Standing } from "./route.ts";
import { SharedTokens, standingIn } from "./shared-tokens.ts";
import type { HeldMark } from "./shared-tokens.ts";
import { CausalTokens } from "./tokens.ts";
import { LINGER_MS, tokenFields } from "./travelling-tokens.ts";
import type { TravelAnswer } from "./travelling-tokens.ts";

export interface CausalityOptions {
  readonly consistency: Consistency;
  readonly client: readonly ClientSource[];
  readonly hasReverse: boolean;
  readonly lagMs: number;
  readonly source: RoutingSource;
  readonly writer: FenceWriter;
  /** The state to route by (the source's, or the one remembered on disk). */
  readonly state: () => RoutingState;
  readonly log: Log;
  /** How many clients may be bound at once. */
  readonly limit?: number;
  /** How long after a write with unknown outcome its client stays with the authority. */
  readonly unclearMs?: number;
  /** Clients carry their tokens in cookies, so that several sidecars can serve them. */
  readonly cookies?: boolean;
  /** Their tokens are in Redis, for the same end. */
  readonly redis?: { readonly url: string; readonly plan: string } | undefined;
}

export interface ReadFacts {
  readonly bucket: number;
  readonly share: number;
  readonly standing: Standing;
}

/** Nothing binds anybody: the table of phases alone decides. */
const UNBOUND: ReadFacts = { bucket: 0, share: 0, standing: "passed" };
/** How long a read may wait for the fence that lets it leave the authority: a mirror in good health needs a few ms. */
const REDEEM_MS = 25;
/** Lag is measured anew for a read when it was last measured so long ago: this process may have been stopped. */
const STALE_MS = 1_000;
/** A bucket that is in no share: a client that nothing identifies cannot be promised anything, so it stays with the authority. */
const NOWHERE = 1;

/**
 * Who may read from the follower: joins identities, fences, tokens and the gate. The promise (DESIGN §4): everybody reads
 * their own writes, and a client that has read from the authority does not go back in time. Streams are not reads: what an
 * open stream of the authority shows binds nobody.
 */
export class Causality {
  readonly #options: Required<Omit<CausalityOptions, "redis">>;
  readonly #identities: ClientIdentities;
  readonly #tokens: CausalTokens;
  readonly #line: FenceLine;
  readonly gate: ReadGate;
  readonly #cookies: CausalCookies | undefined;
  readonly #shared: SharedTokens | undefined;
  /** Clients whose last write may still be applied, and what binds them with the other sidecars. */
  readonly #unclear = new Map<string, HeldMark>();
  #breaks = 0;
  /** When a follower was last to answer reads, for all it knows: a sidecar that has just started does not. */
  #wantedAt = performance.now();
  #lookedAt = performance.now();
  readonly #passedWaiters = new Set<() => void>();

  constructor(options: CausalityOptions) {
    this.#options = { limit: 100_000, unclearMs: 10_000, cookies: false, ...options };
    const { writer, log, consistency, lagMs, state, limit } = this.#options;
    this.#identities = new ClientIdentities(options.client);
    const travels = this.#options.cookies && consistency !== "eventual";
    this.#cookies = travels ? new CausalCookies(() => state().salt) : undefined;
    this.#line = new FenceLine({
      writer,
      log,
      isOver: (fence) => fence.epoch < this.#view().epoch,
    });
    this.#tokens = new CausalTokens({ limit, onOverflow: () => this.#overflow() });
    this.gate = new ReadGate({
      consistency,
      lagMs,
      askFence: (urgent) => this.#line.next(state().authority, state().epoch, urgent),
      onOpening: () => this.#tokens.clear(),
    });
    if (options.redis !== undefined && consistency !== "eventual") {
      const { source } = options;
      const onChange = () => this.update();
      this.#shared = new SharedTokens({ ...options.redis, state, source, lagMs, log, onChange });
    }
  }

  /** How many clients are bound. */
  get pinned(): number {
    return this.#tokens.size;
  }

  get mirrored(): boolean {
    return isMirrored(this.#options.state().phase, this.#options.hasReverse);
  }

  identify(request: ClientRequest): Identity {
    return this.#identities.of(request);
  }

  /** Keys of the cookies that a response sets. */
  setBy(rawHeaders: readonly string[]): string[] {
    return this.#identities.setBy(rawHeaders);
  }

  /** What routing a read needs to know. Costs nothing where the authority answers every read. */
  factsOf(identity: () => Identity, travelled: Standing = "passed"): ReadFacts {
    if (typeof travelled === "object") return { ...UNBOUND, standing: travelled };
    if (this.gate.wanted === 0) return UNBOUND;
    const { client, address, obeys } = identity();
    // Where nothing is promised, anything that sticks will do.
    const sticky = this.#options.consistency === "eventual" ? (client ?? address) : client;
    return {
      bucket: this.#bucket(sticky),
      share: this.gate.share,
      standing:
        this.gate.tracking && travelled === "passed"
          ? this.#tokens.standing(obeys, this.#view())
          : travelled,
    };
  }

  /** What names of this sidecar's own cookies begin with: the apps do not get them. */
  get cookiePrefix(): string | undefined {
    return this.#cookies?.prefix;
  }

  /** The tokens a request carries. */
  carriedBy(request: ClientRequest): readonly CausalCookie[] {
    return this.#cookies?.of(request.headers.cookie) ?? [];
  }

  /** Header fields that give the client its token. */
  tokenFields(identity: () => Identity, answer: Omit<TravelAnswer, "inShare">): string[] {
    if (this.#cookies === undefined) return [];
    const { phase, epoch, authority } = this.#options.state();
    const underWay = phase !== "off" && phase !== "done";
    const wanted = this.gate.wanted > 0 && this.#bucket(identity().client) < this.gate.wanted;
    // Cut off, this one does not know whose reads another sidecar sends to a follower.
    const inShare = wanted || !this.#options.source.connected();
    const facts = { epoch, authority, issuing: this.#issuing(), underWay };
    return tokenFields(this.#cookies, { ...answer, inShare }, facts);
  }

  /** Whether a read could leave the authority if a fence taken now passed: the client's open tokens are from before. */
  mayRedeem(identity: () => Identity, carried: readonly CarriedToken[]): boolean {
    if (!carried.some((token) => token.fence === undefined)) return false;
    if (this.travelled(carried) !== "unpassed") return false;
    return this.#bucket(identity().client) < this.gate.share;
  }

  /** Takes that fence; undefined if it has not passed in time. */
  async redeem(): Promise<Fence | undefined> {
    const fence = this.#fence(true);
    await this.untilPassed(fence, REDEEM_MS);
    return this.hasPassed(fence) ? fence : undefined;
  }

  /** Where a client stands by the tokens that it carries. */
  travelled(carried: readonly CarriedToken[]): Standing {
    return this.#cookies === undefined ? "passed" : standingOf(carried, this.#view());
  }

  /** Whether another sidecar may let a follower answer this one's clients. */
  #issuing(): boolean {
    if (!this.#options.source.connected()) return true;
    return this.gate.wanted > 0 || performance.now() - this.#wantedAt < LINGER_MS;
  }

  /** Whether other sidecars must be asked what binds the client of a read, before a follower may answer it. */
  mustLook(identity: () => Identity): boolean {
    if (this.#shared === undefined || this.#isAlone()) return false;
    // Cut off, this one may not even know who the authority is.
    if (!this.#options.source.connected()) return this.#shared.why === undefined;
    if (this.gate.share === 0) return false;
    if (performance.now() - this.#lookedAt > STALE_MS) this.update();
    const { client, obeys } = identity();
    return (
      this.#bucket(client) < this.gate.share &&
      this.#tokens.standing(obeys, this.#view()) === "passed"
    );
  }

  /** What they have stored of it; undefined: they could not be asked. */
  async look(identity: () => Identity): Promise<readonly CarriedToken[] | undefined> {
    return this.#shared?.look(identity().obeys);
  }

  standingIn(found: readonly CarriedToken[] | undefined): Standing {
    return found === undefined ? "unpassed" : standingIn(found, this.#view());
  }

  /** Neither the control store nor Redis tells this one who the authority is now. */
  get isBlind(): boolean {
    if (this.#options.consistency === "eventual" || this.gate.wanted === 0) return false;
    const isTold = this.#shared !== undefined && this.#shared.why === undefined;
    return !this.#options.source.connected() && !isTold;
  }

  /** Whether answers of the authority wait until the other sidecars can know what they bind. */
  get sharing(): boolean {
    if (this.#shared === undefined || this.#isAlone()) return false;
    return this.#issuing() && !this.#shared.isGivenUp;
  }

  /** Whether a read that the authority answers binds its client, beyond this sidecar. */
  sharesRead(identity: () => Identity, sets: readonly string[]): boolean {
    return this.sharing && this.#bindsReader(identity(), sets);
  }

  /** Tells the other sidecars; false: they may not know. */
  async share(keys: readonly string[], fence: Fence): Promise<boolean> {
    return this.sharing && keys.length > 0 ? (this.#shared?.bind(keys, fence) ?? true) : true;
  }

  /** Tells them of an answer that goes on. */
  shareOpen(keys: readonly string[]): HeldMark | undefined {
    return this.sharing && keys.length > 0 ? this.#shared?.hold(keys) : undefined;
  }

  /** How Redis is, and how many answers went out without a promise; undefined: it is not used for tokens. */
  get redis(): { readonly why: string | undefined; readonly unpromised: number } | undefined {
    return this.#shared;
  }

  /**
   * The authority answers a read: the client must not go back in time. Called before each part of the answer is sent, because
   * the app may have read that part just now. Clients outside of the wanted share never read elsewhere: nothing to bind, unless they are
   * given a new identity. Returns the fence that binds it.
   */
  answeredByAuthority(identity: () => Identity, sets: readonly string[]): Fence | undefined {
    if (!this.gate.tracking && !this.sharing) return undefined;
    if (!this.#bindsReader(identity(), sets)) return undefined;
    const fence = this.#fence(false);
    if (this.gate.tracking) this.#tokens.bind([...identity().reads, ...sets], fence);
    return fence;
  }

  #bindsReader({ client }: Identity, sets: readonly string[]): boolean {
    if (sets.length > 0) return true;
    return (
      client !== undefined && this.#bucket(client) < Math.max(this.gate.wanted, this.#cutOff())
    );
  }

  /** Cut off, this one does not know whose reads another sidecar sends to a follower. */
  #cutOff(): number {
    return this.#options.source.connected() ? 0 : 1;
  }

  /** No other sidecar answers anybody, for certain. */
  #isAlone(): boolean {
    return this.#options.source.connected() && this.#options.source.alone();
  }

  /** The follower answers a read and gives the client a new identity: what binds the old ones binds it. */
  answeredByFollower(identity: () => Identity, sets: readonly string[]): void {
    if (sets.length > 0 && this.gate.tracking) {
      this.#tokens.inherit(identity().obeys, sets, this.#view());
    }
  }

  /** What the answer to a write that just came has to wait for. */
  need(): FenceNeed {
    const { consistency } = this.#options;
    const passing = !this.gate.lagging && this.#options.source.connected();
    return fenceFor({
      consistency,
      mirrored: this.mirrored,
      tracking: this.gate.tracking || this.sharing,
      passing,
    });
  }

  /** A write was answered, well or badly: binds everybody it may concern. Undefined where nobody needs binding. */
  wrote(identity: () => Identity, sets: readonly string[], trace?: string): Fence | undefined {
    if (this.need() === "none") return undefined;
    const fence = this.#fence(true, trace);
    if (this.gate.tracking) this.#tokens.bind([...identity().writes, ...sets], fence);
    return fence;
  }

  /** A write whose outcome nobody knows: it may be applied any moment now. */
  mayHaveWritten(identity: () => Identity): void {
    if (this.#options.consistency === "eventual") return;
    const { writes } = identity();
    this.#tokens.bindUnclear(writes, performance.now() + this.#options.unclearMs);
    for (const key of writes) {
      const held = this.shareOpen([key]);
      this.#unclear.get(key)?.end();
      if (held !== undefined) this.#unclear.set(key, held);
    }
    this.wrote(identity, []);
  }

  hasPassed(fence: Fence): boolean {
    return fence.standing(this.#view()) === "passed";
  }

  /** Resolves when the fence has passed, or after `ms`. */
  async untilPassed(fence: Fence, ms: number): Promise<void> {
    if (this.hasPassed(fence)) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#passedWaiters.delete(look);
        resolve();
      };
      const look = () => {
        if (this.hasPassed(fence)) end();
      };
      const timer = setTimeout(end, ms);
      this.#passedWaiters.add(look);
    });
  }

  /** State or link changed, or time went by. */
  update(): void {
    const facts = this.#facts();
    this.#lookedAt = facts.now;
    if (this.#shared !== undefined && this.#options.source.breaks() !== this.#breaks) {
      this.#breaks = this.#options.source.breaks();
      this.gate.restart(facts);
    }
    void this.#shared?.tellEpoch();
    // Cut off, it may have missed such a phase.
    if (this.gate.wanted > 0 || !facts.connected) this.#wantedAt = facts.now;
    this.gate.measure(facts, this.#lagMatters());
    this.gate.update(facts);
    const ended = this.#tokens.endUnclear(facts.now);
    if (ended.length === 0) return;
    const fence = this.#fence(false);
    if (this.gate.tracking) this.#tokens.bind(ended, fence);
    void this.share(ended, fence);
    for (const key of ended) {
      this.#unclear.get(key)?.end();
      this.#unclear.delete(key);
    }
  }

  /** The mirror has passed a fence. */
  passed(): void {
    this.gate.update(this.#facts());
    this.#tokens.sweep(this.#view());
    for (const look of this.#passedWaiters) look();
  }

  async stop(): Promise<void> {
    this.#shared?.stop();
    await this.#line.stop();
  }

  #isTold(): boolean {
    return this.#cookies !== undefined || this.#shared !== undefined;
  }

  #lagMatters(): boolean {
    return this.gate.wanted > 0 || (this.#options.consistency === "strict" && this.mirrored);
  }

  #overflow(): void {
    this.#options.log.warn(
      { limit: this.#options.limit },
      "more clients wait for the mirror than are remembered: all reads go to the authority until it has caught up",
    );
    this.gate.restart(this.#facts());
  }

  #fence(urgent: boolean, trace?: string): Fence {
    const { authority, epoch } = this.#options.state();
    return this.#line.next(authority, epoch, urgent, trace);
  }

  #bucket(client: string | undefined): number {
    return client === undefined ? NOWHERE : bucketOf(this.#options.state().salt, client);
  }

  #view(): FenceView {
    return { epoch: this.#options.state().epoch, passed: this.#options.source.passed() };
  }

  #facts(): GateFacts {
    const { source, state } = this.#options;
    return {
      state: state(),
      connected: source.connected(),
      alone: source.alone() || (this.#isTold() && source.inStep()),
      redis: source.alone() ? undefined : this.#shared?.why,
      view: this.#view(),
      now: performance.now(),
    };
  }
}
