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
import { readSidecars } from "../store/control/sidecars.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";
import type { Acknowledged, Fleet, HeldStats } from "./flip-types.ts";
import { FRESH_MS } from "./gates.ts";
import { authorityIn } from "./machine.ts";

/** Notifications make it fast; looking makes it sure. */
const POLL_MS = 25;
/** Sidecars report what they held with a heartbeat after the release. */
const REPORT_MS = 2_500;

/** The sidecars of a plan, through the control store. */
export function openFleet(store: ControlStore, listener: Listener): Fleet {
  const until = (ready: (sidecar: SidecarSeen) => boolean, ms: number) =>
    untilAll(store, listener, ready, ms);
  return {
    async hold({ attempt, leaseMs, waitMs }) {
      const started = performance.now();
      const held = await holdWrites(store, { attempt, ms: leaseMs });
      if (held === undefined)
        throw new CrossfadeError(
          "STALE",
          `attempt ${attempt} may not hold writes: a later one has`,
        );
      return until(
        (sidecar) => sidecar.holdAttempt === attempt,
        waitMs - (performance.now() - started),
      );
    },
    publish: (authority, epoch, phase) => publish(store, authority, epoch, phase),
    awaitEpoch: (epoch, ms) => until((sidecar) => sidecar.epoch >= epoch, ms),
    release: (attempt) => releaseWrites(store, attempt),
    async heldStats(attempt) {
      const asked = performance.now();
      // A heartbeat from after the release has counted what was held; a sidecar that held nothing has no report of it.
      const reported = (sidecar: SidecarSeen) =>
        sidecar.holdAttempt !== attempt && sidecar.seenMs < performance.now() - asked;
      await until(reported, REPORT_MS);
      return sumHeld(await readSidecars(store), attempt);
    },
  };
}

/** Live sidecars only: one that was not seen lately routes by what it last knew, and the guard decides. */
async function untilAll(
  store: ControlStore,
  listener: Listener,
  ready: (sidecar: SidecarSeen) => boolean,
  ms: number,
): Promise<Acknowledged> {
  const deadline = performance.now() + ms;
  for (;;) {
    const left = deadline - performance.now();
    const news = listener.next(
      (message) => message.t === "sidecar",
      Math.max(1, Math.min(POLL_MS, left)),
    );
    const sidecars = await readSidecars(store);
    const missing = sidecars
      .filter((sidecar) => sidecar.seenMs <= FRESH_MS && !ready(sidecar))
      .map((sidecar) => sidecar.id);
    if (missing.length === 0 || performance.now() >= deadline) return { missing };
    await news;
  }
}

/** Records authority and epoch; never goes back to a lower epoch. A recovery does not know the phase: the authority says it. */
async function publish(
  store: ControlStore,
  authority: Side,
  epoch: number,
  wanted: Phase | undefined,
): Promise<void> {
  for (;;) {
    const now = await readMigration(store);
    if (now.epoch > epoch) return;
    const phase = wanted ?? phaseFor(now, authority);
    const readsNew = phase === now.phase ? now.readsNew : 1;
    const canaryStep = phase === now.phase ? now.canaryStep : 0;
    const expected = { phase: now.phase, epoch: now.epoch, version: now.version };
    if (
      (await changeMigration(store, expected, {
        phase,
        authority,
        epoch,
        readsNew,
        canaryStep,
      })) !== undefined
    )
      return;
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
