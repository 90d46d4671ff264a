import type { Feed } from "../../store/postgres/feed.ts";

/** Says how long the last look into the log and the last taking from it took. */
export class TimedFeed implements Feed {
  readonly #feed: Feed;
  lookMs = 0;
  takeMs = 0;

  constructor(feed: Feed) {
    this.#feed = feed;
  }

  get side(): Feed["side"] {
    return this.#feed.side;
  }

  async read(limit: number): ReturnType<Feed["read"]> {
    const began = performance.now();
    try {
      return await this.#feed.read(limit);
    } finally {
      this.lookMs = performance.now() - began;
    }
  }

  async confirm(...confirmed: Parameters<Feed["confirm"]>): Promise<void> {
    const began = performance.now();
    await this.#feed.confirm(...confirmed);
    this.takeMs = performance.now() - began;
  }

  async writeFence(): Promise<bigint> {
    return this.#feed.writeFence();
  }

  async close(): Promise<void> {
    await this.#feed.close();
  }
}
