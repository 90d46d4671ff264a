import { expect } from "vitest";
import { otherSide } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import type { FlipFailpoint, FlipRequest } from "../../switchover/flip-types.ts";
import { runFlip } from "../../switchover/flip.ts";
import { FlipProcess } from "./flip-process.ts";
import { flipDeps, withApp } from "./flip-deps.ts";
import { TestMirror, contents, installFlipWorld, standing } from "./flip-world.ts";
import type { FlipConfig } from "./flip-deps.ts";
import type { Standing } from "./flip-world.ts";
import { Writers } from "./flip-writers.ts";

/** A flip away from a side: forward it is a flip, back it is a rollback. */
export function away(from: Side, budgetMs = 20_000): FlipRequest {
  return {
    kind: from === "old" ? "flip" : "rollback",
    from,
    to: otherSide(from),
    by: "test",
    budgetMs,
  };
}

/** A world with writers and a mirror on it, in which controllers die or pause one after the other, and what must hold after each. */
export class FlipArena {
  readonly config: FlipConfig;
  readonly #mirror: TestMirror;
  #writers: Writers;

  constructor(config: FlipConfig) {
    this.config = config;
    this.#mirror = new TestMirror(config);
    this.#writers = new Writers(config);
  }

  async start(): Promise<void> {
    await installFlipWorld(this.config);
    this.#mirror.start();
    this.#writers.start(3);
    await this.#writers.progress(6);
  }

  async stop(): Promise<void> {
    await this.#writers.stop();
    await this.#mirror.stop();
  }

  async authorityIs(side: Side): Promise<void> {
    const { open } = await standing(this.config);
    if (open[0] === side) return;
    expect(await runFlip(flipDeps(this.config), away(otherSide(side)))).toMatchObject({
      ok: true,
    });
  }

  async killed(at: FlipFailpoint, flip?: FlipRequest): Promise<void> {
    const child = new FlipProcess({
      config: this.config,
      failpoint: { at, action: "kill" },
      ...(flip === undefined ? {} : { flip }),
    });
    expect(await child.ended(), JSON.stringify(child.output)).toBe("SIGKILL");
  }

  /** A controller that is paused at a failpoint of its flip. */
  async paused(at: FlipFailpoint, flip: FlipRequest): Promise<FlipProcess> {
    const child = new FlipProcess({ config: this.config, flip, failpoint: { at, action: "stop" } });
    await child.stopped();
    return child;
  }

  async standing(): Promise<Standing> {
    return standing(this.config);
  }

  /** Exactly one consistent state: agreeing rows, one guard open, the follower's armed, writes flow and are mirrored. */
  async mustStand(authority: Side, epoch: number): Promise<void> {
    expect(await standing(this.config)).toMatchObject({
      direction: authority === "old" ? "forward" : "reverse",
      epoch,
      open: [authority],
      ended: true,
      armed: [otherSide(authority)],
      published: { side: authority },
    });
    await this.#writers.progress(6);
    await this.#refuses(otherSide(authority));
  }

  async #refuses(side: Side): Promise<void> {
    await expect(
      withApp(this.config, side, (client) =>
        client.query("insert into items (v) values ('stray')"),
      ),
    ).rejects.toMatchObject({ code: "CF001" });
  }

  /** Ends the writers; every acknowledged write is on both sides, once, with what it said, and nothing else is. */
  async nothingWasLost(): Promise<void> {
    await this.#writers.stop();
    expect(this.#writers.errors).toEqual([]);
    const read = async (side: Side) => (await contents(this.config, side)).join("\n");
    await expect
      .poll(async () => (await read("old")) === (await read("new")), { timeout: 20_000 })
      .toBe(true);
    const rows = new Set(await contents(this.config, "old"));
    const expected = this.#writers.acknowledged.map(({ id, v }) => `items (${id},${v})`);
    expect(expected.filter((row) => !rows.has(row))).toEqual([]);
    expect(rows.size).toBe(expected.length);
  }
}
