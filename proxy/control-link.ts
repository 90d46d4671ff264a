import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../config/errors.ts";
import { RunningState } from "../config/lifecycle.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { listen } from "../store/control/listen.ts";
import type { ControlMessage, Listener } from "../store/control/listen.ts";
import { readMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import type { ControlStore } from "../store/control/open.ts";
import { beatSidecar, readSidecars, removeSidecar } from "../store/control/sidecars.ts";
import { watchState } from "../store/control/watch.ts";
import type { StateWatcher } from "../store/control/watch.ts";
import { readWorkers } from "../store/control/workers.ts";
import { Emitter } from "./emitter.ts";
import { BEAT_MS, Peers, PEERS_MS } from "./peers.ts";
import type { Acknowledgement, Passed, RoutingSource, RoutingState } from "./ports.ts";
import { wantedShare } from "./route.ts";
import type { SidecarStats } from "./stats-types.ts";

/**
 * A beat follows what a message has said already, or what nobody waits for while writes are held: it takes a commit, and those
 * whom a flip waits for need the same servers.
 */
const AFTER_MESSAGE_MS = 200;
/** How often to look whether the link still stands. */
const LINK_MS = 250;
/** A control store that does not answer by then is taken to be away at start. */
const FIRST_STATE_MS = 2_500;

export interface ControlLinkOptions {
  readonly plan: Plan;
  /** Stays the same when the sidecar of this address restarts, so that it takes its own place in the list. */
  readonly id: string;
  readonly listen: string;
  readonly log: Log;
}

/** Routing state from the control store, and what the sidecar says back to it. */
export class ControlLink implements RoutingSource {
  readonly #options: ControlLinkOptions;
  readonly #store: ControlStore;
  readonly #beating: RunningState;
  readonly #states = new Emitter<RoutingState>();
  readonly #passings = new Emitter<void>();
  readonly #links = new Emitter<void>();
  readonly #timers: NodeJS.Timeout[] = [];
  #listener: Listener | undefined;
  #watcher: StateWatcher | undefined;
  #loop: Promise<void> | undefined;
  #state: RoutingState | undefined;
  #passed: Passed = { epoch: 0, fence: 0n };
  #connected = false;
  readonly #peers: Peers;
  /** Of the migration row: the last one heard, and the one since which so large a share is read from a follower. */
  #version = 0;
  #sharedSince = 0;
  #refreshing: Promise<void> | undefined;
  #refreshAgain = false;
  #acknowledgement: Acknowledgement | undefined;
  #stats: SidecarStats | undefined;
  /** Told when the next beat that has not started yet has arrived. */
  #unheard: (() => void)[] = [];

  constructor(options: ControlLinkOptions) {
    this.#options = options;
    this.#store = openControlStore(options.plan, { role: "sidecar", instance: options.id });
    this.#beating = new RunningState({
      name: "control store",
      log: options.log,
      maxBackoffMs: 1_000,
    });
    this.#peers = new Peers({
      id: options.id,
      carrier: options.plan.proxy.tokens,
      isRunning: () => this.#beating.shouldRun(),
    });
  }

  state(): RoutingState | undefined {
    return this.#state;
  }

  passed(): Passed {
    return this.#passed;
  }

  connected(): boolean {
    return this.#connected && this.#isCurrent();
  }

  #isCurrent(): boolean {
    return (this.#watcher?.connected ?? false) && this.#peers.areKnown && !this.#isInDoubt();
  }

  /**
   * Whether a hold has come to its deadline without news. It is released before that, unless the news does not arrive: then the
   * authority may have moved, and what was read before the deadline counts for nothing.
   */
  #isInDoubt(): boolean {
    const hold = this.#state?.hold ?? null;
    if (hold === null || performance.now() <= hold.deadline) return false;
    return (this.#watcher?.readAt ?? 0) <= hold.deadline;
  }

  alone(): boolean {
    return this.#peers.areNone;
  }

  inStep(): boolean {
    return this.#peers.areInStep(this.#sharedSince);
  }

  breaks(): number {
    return this.#peers.breaks;
  }

  pledge(carrier: string): number {
    const pledge = this.#peers.pledge(carrier);
    this.#beating.wake();
    return pledge;
  }

  heard(pledge: number): boolean {
    return this.#peers.heard(pledge);
  }

  async untilHeard(pledge: number, ms: number): Promise<boolean> {
    return this.#peers.untilHeard(pledge, ms);
  }

  async look(): Promise<void> {
    await this.#watcher?.look();
  }

  onState(listener: (state: RoutingState) => void): () => void {
    return this.#states.on(listener);
  }

  onPassed(listener: () => void): () => void {
    return this.#passings.on(listener);
  }

  onLink(listener: () => void): () => void {
    return this.#links.on(listener);
  }

  async acknowledge(acknowledgement: Acknowledgement): Promise<void> {
    const before = this.#acknowledgement;
    this.#acknowledgement = acknowledgement;
    const isSaid = isAwaited(acknowledgement, before)
      ? this.#tellAtOnce(acknowledgement)
      : this.#state?.hold != null;
    if (isSaid) this.#beating.wakeIn(AFTER_MESSAGE_MS);
    else this.#beating.wake();
    await this.#untilHeardOf();
  }

  /**
   * What a flip waits for while writes are held. A beat may be under way, and takes a commit each: the message goes ahead of
   * the next one, which says the same for good. Returns whether there was a connection to send it on.
   */
  #tellAtOnce({ epoch, hold }: Acknowledgement): boolean {
    if (this.#listener?.connected !== true) return false;
    const { id } = this.#options;
    void this.#listener.notify("controller", { t: "sidecar", id, epoch, hold });
    return true;
  }

  async #nextBeat(): Promise<void> {
    this.#beating.wake();
    await this.#untilHeardOf();
  }

  /** The next beat that has not started yet has arrived. */
  async #untilHeardOf(): Promise<void> {
    await new Promise<void>((resolve) => this.#unheard.push(resolve));
  }

  report(stats: SidecarStats): void {
    this.#stats = stats;
    if (this.#state?.hold == null) this.#beating.wake();
    else this.#beating.wakeIn(AFTER_MESSAGE_MS);
  }

  /**
   * Reads the state, registers, and reads it again: a flip that began in between has not seen this sidecar, so the sidecar
   * must see the flip. Then every other sidecar has to know of this one before it takes a request.
   */
  async start(): Promise<void> {
    const { log } = this.#options;
    this.#listener = listen(this.#store, log, "sidecars");
    this.#watcher = watchState(this.#store, this.#listener, log);
    this.#listener.on((message) => this.#hear(message));
    this.#listener.onConnected(() => this.#refresh());
    this.#watcher.onChange((migration) => this.#accept(migration));
    this.#timers.push(
      setInterval(() => this.#checkLink(), LINK_MS),
      setInterval(() => this.#refresh(), BEAT_MS),
    );
    try {
      await this.#watcher.until(() => true, AbortSignal.timeout(FIRST_STATE_MS));
      await this.#register();
    } catch (error) {
      log.warn({}, `control store: not there at start: ${messageOf(error)}`);
    }
    this.#loop ??= this.#beatUntilStopped();
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#beating.stop();
    await this.#loop;
    for (const resolve of this.#unheard.splice(0)) resolve();
    await this.#refreshing;
    await this.#watcher?.stop();
    // A store that is away forgets this sidecar by itself.
    if (this.#connected) await removeSidecar(this.#store, this.#options.id).catch(() => {});
    await this.#listener?.close();
    await closeControlStore(this.#store);
  }

  async #register(): Promise<void> {
    const epoch = this.#state?.epoch ?? 0;
    this.#acknowledgement ??= { epoch, hold: null, inFlightWrites: 0 };
    await this.#beat();
    this.#loop = this.#beatUntilStopped();
    const { version } = await readMigration(this.#store);
    await this.#watcher?.until(
      (now) => now.version >= version,
      AbortSignal.timeout(FIRST_STATE_MS),
    );
    await this.#untilPeersKnow();
    // Those who count on a pledge have said so before they take requests, and look once more after they have said it.
    await Promise.race([this.#nextBeat(), sleep(PEERS_MS)]);
    await this.#readPeers();
  }

  async #untilPeersKnow(): Promise<void> {
    const deadline = performance.now() + PEERS_MS;
    for (;;) {
      await this.#readPeers();
      if (this.#peers.areAware || performance.now() > deadline) return;
      await this.#listener?.next((message) => message.t === "sidecar", 50);
    }
  }

  async #readPeers(): Promise<void> {
    const { id } = this.#options;
    const askedAt = performance.now();
    const { stored } = this.#peers;
    const others = (await readSidecars(this.#store)).filter((sidecar) => sidecar.id !== id);
    const wereInStep = this.inStep();
    const broken = this.#peers.follow(others, stored);
    // Before what was read makes it current again: that it was not must be noticed.
    this.#checkLink();
    if (this.#peers.confirm(others, askedAt)) {
      this.#checkLink();
      this.#links.emit();
      // So that a new one hears that it is known.
      this.#beating.wake();
      return;
    }
    if (broken || this.inStep() !== wereInStep) this.#links.emit();
    // The sidecar whose pledge it is may have answers waiting for this.
    if (broken) this.#beating.wake();
    this.#checkLink();
  }

  #hear(message: ControlMessage): void {
    if (message.t === "passed") this.#pass(message.epoch, BigInt(message.fence));
    const { id } = this.#options;
    if (message.t === "sidecar" && message.id !== id) this.#refresh();
  }

  /** Never backwards: the message and the poll overtake each other. In a gap nothing has passed, whatever was said before. */
  #pass(epoch: number, fence: bigint): void {
    if (this.#state?.lagging === true) return;
    const { epoch: was, fence: before } = this.#passed;
    if (epoch < was || (epoch === was && fence <= before)) return;
    this.#passed = { epoch, fence };
    this.#passings.emit();
  }

  #accept(migration: Migration): void {
    const { phase, epoch, authority, readsNew, salt, hold, gap, version, maintenance } = migration;
    const grew = this.#state === undefined || wantedShare(migration) > wantedShare(this.#state);
    if (grew) this.#sharedSince = version;
    this.#version = version;
    this.#state = {
      phase,
      epoch,
      authority,
      readsNew,
      salt,
      hold: hold ?? null,
      lagging: gap !== undefined,
      maintenance: maintenance ?? null,
    };
    if (gap !== undefined) this.#forgetPassed();
    this.#states.emit(this.#state);
  }

  #checkLink(): void {
    const connected = this.#isCurrent();
    if (connected === this.#connected) return;
    this.#connected = connected;
    if (connected) this.#beginAnew();
    this.#links.emit();
  }

  /** The link is back. There may have been a gap that was not heard of, and the others may have gone on without this one. */
  #beginAnew(): void {
    this.#forgetPassed();
    this.#sharedSince = this.#version;
    this.#peers.beginAnew();
    this.#beating.wake();
  }

  /** A database that went back in time counts its fences from further back again. */
  #forgetPassed(): void {
    this.#passed = { epoch: this.#passed.epoch, fence: 0n };
  }

  /** Looks for what messages tell, because messages get lost. One look at a time. */
  #refresh(): void {
    this.#refreshAgain = true;
    this.#refreshing ??= this.#refreshAll();
  }

  async #refreshAll(): Promise<void> {
    while (this.#refreshAgain && this.#beating.shouldRun()) {
      this.#refreshAgain = false;
      try {
        await this.#readPeers();
        const [mirror] = await readWorkers(this.#store, "mirror");
        if (mirror !== undefined) this.#pass(mirror.stats.epoch, BigInt(mirror.stats.fence));
      } catch {
        // The watcher and the beats report a store that is away.
      }
    }
    this.#refreshing = undefined;
  }

  async #beatUntilStopped(): Promise<void> {
    while (this.#beating.shouldRun()) {
      let failure: unknown;
      try {
        await this.#beat();
        this.#beating.healthy();
      } catch (error) {
        failure = error;
      }
      if (failure === undefined) await this.#beating.sleep(BEAT_MS);
      else await this.#beating.backoff(failure);
    }
  }

  async #beat(): Promise<void> {
    const said = this.#acknowledgement;
    if (said === undefined) return;
    const { id, listen: address } = this.#options;
    const heard = this.#unheard.splice(0);
    const saying = this.#peers.say();
    const stats = { ...this.#stats, ...saying.promised, version: this.#version };
    try {
      await beatSidecar(this.#store, {
        id,
        listen: address,
        epoch: said.epoch,
        holdAttempt: said.hold ?? undefined,
        inFlightWrites: said.inFlightWrites,
        stats,
        isNews: saying.isNews,
      });
      if (this.#peers.said(saying)) this.#refresh();
    } catch (error) {
      this.#unheard.unshift(...heard);
      throw error;
    }
    for (const resolve of heard) resolve();
  }
}

/** Whether it says more of an epoch or a hold than was said before. */
function isAwaited(now: Acknowledgement, before: Acknowledgement | undefined): boolean {
  if (before === undefined) return false;
  return now.epoch !== before.epoch || (now.hold !== null && now.hold !== before.hold);
}
