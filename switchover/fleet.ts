import { setTimeout as sleep } from "node:timers/promises";
import { CrossfadeError } from "../config/errors.ts";
import type { Phase, Side } from "../config/words.ts";
import type { Listener } from "../store/control/listen.ts";
import {
  changeMigration,
  holdWrites,
  readMigration,
  releaseWrites,
} from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { readAcknowledgements, readSidecars } from "../store/control/sidecars.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";
import type {
  Acknowledged,
  Acknowledgements,
  Fleet,
  HeldStats,
  Publication,
} from "./flip-types.ts";
import { FRESH_MS } from "./gate-facts.ts";
import { authorityIn } from "./machine.ts";

/** Notifications make it fast; looking makes it sure. */
const POLL_MS = 25;
/** A sidecar that was silent for so long has noticed that it is cut off, and asks before it lets anybody read. */
const SILENT_MS = 4_500;
/** Sidecars report what they held with a heartbeat after the release. */
const REPORT_MS = 2_500;

/** What a sidecar has acknowledged, as its row or its message says it. */
type Said = Pick<SidecarSeen, "id" | "epoch" | "holdAttempt">;

/** The sidecars of a plan, through the control store. */
export function openFleet(store: ControlStore, listener: Listener): Fleet {
  /** The row as the hold left it: what is recorded next is based on it, and is in time if nobody has changed it since. */
  let known: Migration | undefined;
  return {
    async hold({ attempt, leaseMs, waitMs }) {
      const started = performance.now();
      const ready = (said: Said) => said.holdAttempt === attempt;
      using answers = new Answers(store, listener, ready);
      known = await holdWrites(store, { attempt, ms: leaseMs });
      if (known === undefined)
        throw new CrossfadeError(
          "STALE",
          `attempt ${attempt} may not hold writes: a later one has`,
        );
      return await answers.untilAll(waitMs - (performance.now() - started));
    },
    publish: (news) => publish(store, news, known),
    listenForEpoch: (epoch) => new Answers(store, listener, (said) => said.epoch >= epoch),
    release: (attempt) => releaseWrites(store, attempt),
    async heldStats(attempt) {
      const asked = performance.now();
      // A heartbeat from after the release says what was held, or that this is still to come; a sidecar that held nothing has no
      // report of it.
      const deadline = asked + REPORT_MS;
      for (;;) {
        const sidecars = await readSidecars(store);
        const reported = sidecars.every(
          ({ holdAttempt, seenMs, stats }) =>
            seenMs > FRESH_MS ||
            (holdAttempt !== attempt &&
              stats.held?.pending !== attempt &&
              seenMs < performance.now() - asked),
        );
        if (reported || performance.now() >= deadline) return sumHeld(sidecars, attempt);
        await listener.next((message) => message.t === "sidecar", POLL_MS);
      }
    },
  };
}

/**
 * Waits for what the sidecars acknowledge. Their messages say it, so that nothing has to be read while writes are held; who
 * there is, and what a lost message said, is in the table. Live ones only: one that was not seen lately routes by what it
 * last knew, and the guard decides.
 */
class Answers implements Acknowledgements {
  readonly #store: ControlStore;
  readonly #ready: (said: Said) => boolean;
  readonly #answered = new Set<string>();
  readonly #off: () => void;
  #news = Promise.withResolvers<void>();

  constructor(store: ControlStore, listener: Listener, ready: (said: Said) => boolean) {
    this.#store = store;
    this.#ready = ready;
    this.#off = listener.on((message) => {
      if (message.t !== "sidecar" || message.epoch === undefined) return;
      const { id, epoch, hold } = message;
      if (!ready({ id, epoch, holdAttempt: hold ?? undefined })) return;
      this.#answered.add(id);
      this.#news.resolve();
    });
  }

  async untilAll(ms: number): Promise<Acknowledged> {
    const deadline = performance.now() + ms;
    for (;;) {
      const live = (await readAcknowledgements(this.#store)).filter(
        ({ seenMs }) => seenMs <= SILENT_MS,
      );
      const missing = () =>
        live
          .filter((said) => !this.#ready(said) && !this.#answered.has(said.id))
          .map(({ id }) => id);
      const lookAgain = performance.now() + POLL_MS;
      while (missing().length > 0 && performance.now() < lookAgain) {
        this.#news = Promise.withResolvers();
        await Promise.race([this.#news.promise, sleep(lookAgain - performance.now())]);
      }
      const left = missing();
      if (left.length === 0 || performance.now() >= deadline) return { missing: left };
    }
  }

  [Symbol.dispose](): void {
    this.#off();
  }
}

/**
 * Records authority and epoch; never goes back to a lower epoch. A recovery does not know the phase: the authority says it.
 * `held`: the row as the hold left it. Unless it has changed since, nobody has overtaken, and nothing need be read.
 */
async function publish(
  store: ControlStore,
  { authority, epoch, ...news }: Publication,
  held: Migration | undefined,
): Promise<void> {
  for (let known = held; ; known = undefined) {
    if (known === undefined) await news.mustBeNewest?.();
    const now = known ?? (await readMigration(store));
    if (now.epoch > epoch) return;
    const phase = news.phase ?? phaseFor(now, authority);
    const readsNew = phase === now.phase ? now.readsNew : 1;
    const canaryStep = phase === now.phase ? now.canaryStep : 0;
    const expected = { phase: now.phase, epoch: now.epoch, version: now.version };
    const change = { phase, authority, epoch, readsNew, canaryStep };
    if ((await changeMigration(store, expected, change)) !== undefined) return;
  }
}

/** The phase a flip has led to: a flip forward starts in read-new and ends in write-new, a flip back the other way. */
export function phaseFor(migration: Pick<Migration, "phase">, authority: Side): Phase {
  if (authorityIn(migration.phase) === authority) return migration.phase;
  return authority === "new" ? "write-new" : "read-new";
}

/** What all sidecars held for an attempt, as one. */
export function sumHeld(
  sidecars: readonly Pick<SidecarSeen, "stats">[],
  attempt: number,
): HeldStats {
  const held = sidecars.flatMap((sidecar) =>
    sidecar.stats.held?.attempt === attempt ? [sidecar.stats.held] : [],
  );
  const durations = held.flatMap((report) => report.durations_ms).toSorted((a, b) => a - b);
  const at = (share: number) =>
    durations[Math.max(0, Math.ceil(durations.length * share) - 1)] ?? 0;
  return {
    writes_held: held.reduce((sum, report) => sum + report.writes, 0),
    hold_ms: {
      max: Math.max(0, ...held.map((report) => report.max_ms)),
      p50: at(0.5),
      p99: at(0.99),
    },
    failed: held.reduce((sum, report) => sum + report.failed, 0),
  };
}
