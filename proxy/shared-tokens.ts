import { createHmac } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import { currentGeneration, look, mark } from "../store/redis/client-tokens.ts";
import type { Mark, TokenPlace } from "../store/redis/client-tokens.ts";
import { closeRedis, openRedis } from "../store/redis/open.ts";
import type { Redis } from "../store/redis/open.ts";
import { hasPassed } from "./causal-cookies.ts";
import type { CarriedToken } from "./causal-cookies.ts";
import type { Fence, FenceView } from "./fences.ts";
import type { RoutingSource, RoutingState } from "./ports.ts";
import type { Standing } from "./route.ts";

export interface SharedTokensOptions {
  readonly url: string;
  readonly plan: string;
  readonly state: () => RoutingState;
  readonly source: RoutingSource;
  readonly lagMs: number;
  readonly log: Log;
  /** Redis is there again, or not any more. */
  readonly onChange: () => void;
}

/** How long an answer waits for its token to be stored, and a read for the tokens that bind it. */
const STORE_MS = 20;
/** How long answers wait for the other sidecars to have heard that this one cannot store: once, when Redis goes away. */
const SAY_MS = 250;
/** How often to look whether Redis still is what it was, and how long it may take to say so. */
const CHECK_MS = 500;
const DEAD_MS = 2_000;
/** Told to the others: nothing of this sidecar is stored. */
const NOTHING = "redis:";

/** What all sidecars know of an epoch: a client key of no client. */
const EVERYBODY = "everybody";
const EPOCH_TTL_MS = 30 * 86_400_000;

/** A binding that lasts as long as its answer, or until an unknown outcome is known. */
export interface HeldMark {
  /** As `bind` says. */
  readonly bound: Promise<boolean>;
  /** Refreshes it: an answer may take longer than a token lives. */
  readonly again: () => void;
  /** From now on what `bind` says of these clients is all there is. */
  readonly end: () => void;
}

interface Open {
  readonly fence: Fence;
  readonly since: number;
  /** Where it is stored; undefined: not yet. */
  readonly place: TokenPlace | undefined;
  /** What it was stored as: while the fence is written Redis may be given up, and trusted again. */
  readonly fields: readonly string[];
}

interface Held {
  readonly keys: readonly string[];
  readonly field: string;
  storedAt: number;
}

/**
 * Tokens in Redis: what one sidecar's answers bind, the others ask for before they let a follower answer a read. Why nothing
 * is read stale when Redis is flushed, restarted, cut off from some or gone: docs/decisions/redis-tokens.md.
 *
 * An answer is preceded by an *open* token, stored while its fence is being written; the fence replaces it.
 */
export class SharedTokens {
  readonly #options: SharedTokensOptions;
  readonly #redis: Redis;
  /** Of this connection: what an earlier one of ours still says must not be overwritten by what it sent late. */
  #holder = crypto.randomUUID().slice(0, 8);
  #place: TokenPlace | undefined;
  #why: string | undefined = "connecting";
  /** The pledge by which this sidecar last said that it stores nothing, and until when answers wait for others to hear it. */
  #doubt: number;
  #sayUntil = 0;
  #isLinked = false;
  /** Keys whose token of ours is open, with the fence that is to replace it. */
  readonly #open = new Map<string, Open>();
  readonly #held = new Set<Held>();
  /** What is to take the place of tokens that were sent, where that Redis was given up meanwhile. */
  #owed: (() => Promise<unknown>)[] = [];
  /** Where this connection has sent tokens last. */
  #sentTo: TokenPlace | undefined;
  #epoch = -1;
  readonly #bound = new WeakMap<Fence, Set<string>>();
  #marks = 0;
  /** Answers that went out although others may not know of them. */
  unpromised = 0;
  #epochStored = 0;
  #adopting = false;
  readonly #check: NodeJS.Timeout;

  constructor(options: SharedTokensOptions) {
    this.#options = options;
    this.#doubt = options.source.pledge(NOTHING);
    this.#redis = openRedis(options.url, options.log);
    this.#redis.on("ready", () => void this.#adopt());
    this.#redis.on("close", () => {
      this.#lose("not connected");
      this.#forgetOwed();
    });
    options.source.onLink(() => this.#linked());
    this.#check = setInterval(() => void this.#adopt(), CHECK_MS);
  }

  /** Why tokens cannot be stored; undefined: they can. */
  get why(): string | undefined {
    return this.#why;
  }

  /** Nothing can be stored, and everybody knows. */
  get isGivenUp(): boolean {
    return this.#place === undefined && this.#isHeard(false);
  }

  /**
   * Binds the clients by `fence`. True: no other sidecar lets a follower answer them before it has passed. Never longer than a
   * few milliseconds, but for the moment in which Redis goes away.
   */
  async bind(keys: readonly string[], fence: Fence): Promise<boolean> {
    const now = performance.now();
    const { epoch } = this.#options.state();
    if (epoch !== this.#epoch) this.#storeAnew();
    this.#epoch = epoch;
    const due = keys.filter((key) => !this.#isOpen(key, now));
    for (const key of keys) {
      const open = this.#open.get(key);
      const fields = [...new Set([...(open?.fields ?? []), this.#holder])];
      this.#open.set(
        key,
        open === undefined || due.includes(key)
          ? { fence, since: now, place: undefined, fields }
          : { ...open, fence },
      );
    }
    this.#resolveLater(fence, keys);
    const place = this.#place;
    const stored = due.length === 0 || (await this.#mark(due, this.#holder, this.#openValue()));
    for (const key of stored ? due : []) {
      const open = this.#open.get(key);
      if (open?.since === now) this.#open.set(key, { ...open, place });
    }
    return this.#promised(stored);
  }

  /** Binds the clients for as long as something is under way. */
  hold(keys: readonly string[]): HeldMark {
    const held: Held = {
      keys,
      field: `${this.#holder}.${++this.#marks}`,
      storedAt: performance.now(),
    };
    this.#held.add(held);
    return {
      bound: this.#storeHeld(held),
      again: () => {
        if (performance.now() - held.storedAt > this.#ttlMs / 3) void this.#storeHeld(held);
      },
      end: () => {
        if (this.#held.delete(held)) this.#replace(keys, held.field, undefined);
      },
    };
  }

  /** What binds these clients by what all sidecars have stored; undefined: Redis could not be asked in time. */
  async look(keys: readonly string[]): Promise<readonly CarriedToken[] | undefined> {
    const place = this.#place;
    if (place === undefined) return undefined;
    const asked = [EVERYBODY, ...keys].map((key) => this.#hashed(key));
    const found = await this.#inTime(look(this.#redis, place, asked));
    if (found === undefined || this.#place !== place) return undefined;
    return found.map(parseToken);
  }

  /** Tells everybody, also those that are cut off from the control store, who the authority of this epoch is. */
  async tellEpoch(): Promise<void> {
    const { epoch, authority } = this.#options.state();
    if (epoch <= this.#epochStored || this.#place === undefined) return;
    const field = `epoch ${epoch}`;
    if (await this.#mark([EVERYBODY], field, `${epoch}.0.${authority}`, EPOCH_TTL_MS)) {
      this.#epochStored = Math.max(this.#epochStored, epoch);
    }
  }

  stop(): void {
    clearInterval(this.#check);
    closeRedis(this.#redis);
    this.#place = undefined;
  }

  /** Long enough for every fence taken before to have passed, or for reads to have left the follower for lag. */
  get #ttlMs(): number {
    return 60_000 + 4 * this.#options.lagMs;
  }

  #isOpen(key: string, now: number): boolean {
    const known = this.#open.get(key);
    const isStored = known?.place !== undefined && known.place === this.#place;
    return isStored && now - known.since < this.#ttlMs / 3;
  }

  async #storeHeld(held: Held): Promise<boolean> {
    held.storedAt = performance.now();
    return this.#promised(await this.#mark(held.keys, held.field, this.#openValue()));
  }

  /**
   * Whether an answer may go out: what it binds is stored, or those who would have to know have heard that it is not, and ask the authority
   * until a fence that they take after that has passed.
   */
  async #promised(stored: boolean): Promise<boolean> {
    if (this.#place !== undefined) await this.tellEpoch();
    if (this.#isHeard(stored)) return true;
    const { source } = this.#options;
    await source.untilHeard(this.#doubt, Math.max(0, this.#sayUntil - performance.now()));
    if (this.#isHeard(stored)) return true;
    this.unpromised += 1;
    return false;
  }

  /** Cut off from the control store too, this one does not know whether they still go by what they have heard. */
  #isHeard(stored: boolean): boolean {
    const { source } = this.#options;
    return source.heard(this.#doubt) && (stored || source.connected());
  }

  /** In a new epoch an open token names that one. What takes the place of the older ones is still owed. */
  #storeAnew(): void {
    for (const [key, open] of this.#open) this.#open.set(key, { ...open, place: undefined });
  }

  /** The fence replaces the open tokens, but for those that a later one is to replace. */
  #resolveLater(fence: Fence, keys: readonly string[]): void {
    const known = this.#bound.get(fence);
    if (known !== undefined) {
      for (const key of keys) known.add(key);
      return;
    }
    const bound = new Set(keys);
    this.#bound.set(fence, bound);
    fence.whenWritten(({ side, epoch, fence: id }) => {
      const byField = new Map<string, string[]>();
      for (const key of bound) {
        const open = this.#open.get(key);
        if (open?.fence !== fence) continue;
        this.#open.delete(key);
        for (const field of open.fields) byField.set(field, [...(byField.get(field) ?? []), key]);
      }
      for (const [field, last] of byField) this.#replace(last, field, `${epoch}.${id}.${side}`);
    });
  }

  /**
   * Puts something in the place of a token. That one would bind for its whole life; so where this Redis is not trusted for a moment, it
   * follows as soon as it is. On the same connection only: there it comes after what was sent before.
   */
  #replace(keys: readonly string[], field: string, value: string | undefined): void {
    if (this.#place !== undefined) {
      void this.#mark(keys, field, value);
    } else if (this.#sentTo !== undefined) {
      const said = this.#said(keys, field, value);
      const place = this.#sentTo;
      this.#owed.push(() => mark(this.#redis, place, said));
    }
  }

  #forgetOwed(): void {
    this.#owed = [];
    this.#sentTo = undefined;
  }

  async #payOwed(): Promise<void> {
    await Promise.all(this.#owed.splice(0).map((say) => say()));
  }

  /** What stands for everything until then: no fence is known yet. */
  #openValue(): string {
    const { epoch, authority } = this.#options.state();
    return `${epoch}.open.${authority}`;
  }

  async #mark(
    keys: readonly string[],
    field: string,
    value: string | undefined,
    ttlMs = this.#ttlMs,
  ): Promise<boolean> {
    const place = this.#place;
    if (place === undefined) return false;
    const said = this.#said(keys, field, value, ttlMs);
    const done = await this.#inTime(mark(this.#redis, place, said));
    if (done === false) this.#lose("flushed");
    return done === true && this.#place === place;
  }

  /** Undefined: no answer in time, or none at all. Then this Redis is not trusted until it has been looked at again. */
  async #inTime<T>(asked: Promise<T>): Promise<T | undefined> {
    const place = this.#place;
    const done = new AbortController();
    const late = sleep(STORE_MS, undefined, { signal: done.signal }).then(async () => {
      // If it was this process that was late, the answer is here already.
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
      return undefined;
    });
    late.catch(() => {});
    try {
      const first = await Promise.race([asked.then((value) => ({ value })), late]);
      if (first !== undefined) return first.value;
      asked.catch(() => {});
      if (this.#place === place) this.#lose("slow");
    } catch (error) {
      if (this.#place === place) this.#lose(messageOf(error));
    } finally {
      done.abort();
    }
    return undefined;
  }

  /** Back at the control store the others have to hear again what this one stores: answers wait for it once more. */
  #linked(): void {
    const isLinked = this.#options.source.connected();
    if (isLinked && !this.#isLinked) this.#sayUntil = performance.now() + SAY_MS;
    this.#isLinked = isLinked;
  }

  #lose(why: string): void {
    this.#why = why;
    if (this.#place === undefined) return;
    this.#place = undefined;
    this.#epochStored = 0;
    this.#doubt = this.#options.source.pledge(NOTHING);
    this.#sayUntil = performance.now() + SAY_MS;
    this.#options.onChange();
    if (why !== "not connected") void this.#adopt();
  }

  /** Looks whether Redis is there and still the same, and takes part in its generation. */
  async #adopt(): Promise<void> {
    if (this.#adopting || this.#redis.status !== "ready") return;
    this.#adopting = true;
    try {
      await this.#adoptInTime();
    } catch (error) {
      this.#lose(messageOf(error));
      // It may be like that for long: what stands there ends with its life.
      this.#forgetOwed();
    } finally {
      this.#adopting = false;
    }
  }

  async #adoptInTime(): Promise<void> {
    const { source, onChange } = this.#options;
    const late = setTimeout(() => this.#redis.disconnect(true), DEAD_MS);
    const prefix = `crossfade:{${this.#options.plan}:${this.#hashed("prefix").slice(0, 8)}}:`;
    const generation = await currentGeneration(this.#redis, prefix).finally(() =>
      clearTimeout(late),
    );
    if (this.#place?.generation === generation) return;
    if (this.#place !== undefined) {
      this.#lose("flushed");
    }
    this.#holder = crypto.randomUUID().slice(0, 8);
    const place = { prefix, generation };
    this.#sentTo = place;
    for (const { keys, field } of this.#held)
      await mark(this.#redis, place, this.#said(keys, field, this.#openValue()));
    await this.#payOwed();
    // What came meanwhile is sent before anything of the new place.
    this.#payOwed().catch((error: unknown) => this.#lose(messageOf(error)));
    this.#place = place;
    this.#why = undefined;
    source.pledge(`redis:${generation}`);
    await this.tellEpoch();
    onChange();
  }

  #said(
    keys: readonly string[],
    field: string,
    value: string | undefined,
    ttlMs = this.#ttlMs,
  ): Mark {
    return { keys: keys.map((key) => this.#hashed(key)), field, value, ttlMs };
  }

  /** No identity leaves this process, not even as a hash that others could make too. */
  #hashed(key: string): string {
    return createHmac("sha256", this.#options.state().salt)
      .update(key)
      .digest("base64url")
      .slice(0, 24);
  }
}

/** Where a client stands by what was found. Nothing found: nothing binds it. */
export function standingIn(found: readonly CarriedToken[], view: FenceView): Standing {
  const newer = found
    .filter(({ epoch }) => epoch > Math.max(view.epoch, view.passed.epoch))
    .toSorted((a, b) => b.epoch - a.epoch)[0];
  if (newer !== undefined) return { newer: newer.side };
  return found.some((token) => !hasPassed(token, view)) ? "unpassed" : "passed";
}

function parseToken(text: string): CarriedToken {
  const [epoch = "", fence = "", side] = text.split(".");
  return {
    side: side === "new" ? "new" : "old",
    epoch: Number(epoch),
    fence: fence === "open" ? undefined : BigInt(fence),
  };
}
