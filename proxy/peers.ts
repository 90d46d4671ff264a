import { Emitter } from "./emitter.ts";
import { hasHeard, isInStep, knows, pledgeOf } from "./in-step.ts";
import type { Peer } from "./in-step.ts";

/** How often each sidecar writes what it promises, and reads what the others do. */
export const BEAT_MS = 1_000;
/** What was last read of the other sidecars longer ago says nothing about now. */
const FRESH_MS = 3_000;
/**
 * By then a sidecar that missed the news of another one has noticed that it is cut off, and stays with the authority: what it
 * last read has gone stale, and its last beat was less than one beat before that.
 */
export const PEERS_MS = FRESH_MS + BEAT_MS + 500;

export interface PeersOptions {
  /** This sidecar's. */
  readonly id: string;
  /** Where it stores what binds its clients: its first pledge. */
  readonly carrier: string;
  /** Waiting for the others makes sense. */
  readonly isRunning: () => boolean;
}

/** A row of the list of sidecars. */
export interface Seen {
  readonly id: string;
  readonly seenMs: number;
  readonly stats: Peer;
}

/** What one beat tells the others. */
interface Promised {
  readonly peers: readonly string[];
  readonly tokens: string;
  readonly pledge: string;
  readonly heard: Readonly<Record<string, string>>;
}

interface Said {
  readonly promised: Promised;
  /** The others have not been told this before: they are to hear it at once. */
  readonly isNews: boolean;
  readonly pledge: number;
}

/**
 * The other sidecars: who they are, what they promise for this one's reads, and what this one has pledged to them and they have heard
 * (docs/decisions/redis-tokens.md). Reads and writes nothing by itself: its owner brings what is in the control store, and takes there
 * what is to be said.
 */
export class Peers {
  readonly #options: PeersOptions;
  #ids: readonly string[] = [];
  #live: readonly Peer[] = [];
  /** Those of them that are alive and do not know of this one. */
  #unaware: readonly string[] = [];
  #readAt = Number.NEGATIVE_INFINITY;
  /** The pledges of the others, by id, and how often one that stood was replaced. */
  #pledges = new Map<string, string>();
  #breaks = 0;
  /** What this one pledges; the highest that a beat has brought to the store; and that all others have heard. */
  #carrier: string;
  readonly #run = crypto.randomUUID().slice(0, 8);
  #pledge = 0;
  #stored = 0;
  #heardUpTo = -1;
  /** The pledge since which it is linked: what others heard before counts for nothing. */
  #saidAgain = 0;
  /** What the others were last told. */
  #told = "";
  readonly #hearings = new Emitter<void>();

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#carrier = options.carrier;
  }

  /** What was read of them is recent enough to say something about now. */
  get areKnown(): boolean {
    return performance.now() - this.#readAt < FRESH_MS;
  }

  /** There are none. */
  get areNone(): boolean {
    return this.#ids.length === 0;
  }

  /** All that are alive know of this one. */
  get areAware(): boolean {
    return this.#unaware.length === 0;
  }

  /** How often one of them has replaced a pledge that this one may have built on. */
  get breaks(): number {
    return this.#breaks;
  }

  /** The highest pledge that is in the control store. */
  get stored(): number {
    return this.#stored;
  }

  /** All of them give the tokens that this one's reads need, and have done so since that version of the migration. */
  areInStep(since: number): boolean {
    return isInStep(this.#live, { id: this.#options.id, tokens: this.#carrier, since });
  }

  /** What this one does from now on; the next beat says it. Returns the pledge's number. */
  pledge(carrier: string): number {
    this.#carrier = carrier;
    this.#pledge += 1;
    return this.#pledge;
  }

  heard(pledge: number): boolean {
    return this.#heardUpTo >= pledge;
  }

  /** Waits until all have heard it, at most so long. */
  async untilHeard(pledge: number, ms: number): Promise<boolean> {
    const deadline = performance.now() + ms;
    while (!this.heard(pledge) && performance.now() < deadline && this.#options.isRunning()) {
      await new Promise<void>((resolve) => {
        const end = () => {
          clearTimeout(timer);
          stop();
          resolve();
        };
        const stop = this.#hearings.on(end);
        const timer = setTimeout(end, deadline - performance.now());
      });
    }
    return this.heard(pledge);
  }

  /** This one was cut off and is back: the others may have gone on without it, whatever they had heard. */
  beginAnew(): void {
    this.#pledge += 1;
    this.#saidAgain = this.#pledge;
    this.#heardUpTo = -1;
  }

  /**
   * Takes what was read of all others. `stored`: the pledge in the store when the reading began; who has not heard of it in what was read,
   * hears it before it answers anybody. Returns whether a pledge was broken. Only `confirm` makes it count as known.
   */
  follow(others: readonly Seen[], stored: number): boolean {
    const { id } = this.#options;
    const live = others.filter(({ seenMs }) => seenMs < PEERS_MS);
    this.#unaware = live.filter(({ stats }) => !knows(stats, id)).map((peer) => peer.id);
    this.#live = live.map(({ stats }) => stats);
    const broken = this.#followPledges(others);
    this.#countHeard(stored);
    return broken;
  }

  /** What `follow` took was asked for then. Returns whether these are others than before. */
  confirm(others: readonly Seen[], askedAt: number): boolean {
    this.#readAt = askedAt;
    const ids = others.map((peer) => peer.id).toSorted();
    if (ids.join() === this.#ids.join()) return false;
    this.#ids = ids;
    return true;
  }

  /** What the next beat tells. */
  say(): Said {
    const promised = {
      peers: this.#ids,
      tokens: this.#carrier,
      pledge: `${this.#run}:${this.#pledge}`,
      heard: Object.fromEntries(this.#pledges),
    };
    const isNews = JSON.stringify(promised) !== this.#told;
    return { promised, isNews, pledge: this.#pledge };
  }

  /** It has arrived. Returns whether the others are still to hear of it. */
  said({ promised, pledge }: Said): boolean {
    this.#told = JSON.stringify(promised);
    this.#stored = Math.max(this.#stored, pledge);
    return pledge > this.#heardUpTo;
  }

  #followPledges(others: readonly Seen[]): boolean {
    const before = this.#pledges;
    this.#pledges = new Map(others.map(({ id, stats }) => [id, pledgeOf(stats) ?? ""]));
    const broken = others.some(({ id, stats }) => {
      const was = before.get(id);
      return was !== undefined && was !== (pledgeOf(stats) ?? "");
    });
    if (broken) this.#breaks += 1;
    return broken;
  }

  #countHeard(stored: number): void {
    const { id } = this.#options;
    if (stored <= this.#heardUpTo || stored < this.#saidAgain) return;
    if (!this.#live.every((peer) => hasHeard(peer, id, this.#run, stored))) return;
    this.#heardUpTo = stored;
    this.#hearings.emit();
  }
}
