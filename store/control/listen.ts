import pgListen from "pg-listen";
import type { Subscriber } from "pg-listen";
import { redact } from "../../config/describe.ts";
import { messageOf } from "../../config/errors.ts";
import type { Log } from "../../config/lifecycle.ts";
import { applicationName } from "../postgres/session.ts";
import { channelOf, queryOften } from "./open.ts";
import type { Audience, ControlStore } from "./open.ts";

/**
 * What travels on the plan's channels. Truth is in the tables: a message says "look", and what it carries beside is believed
 * only until somebody has looked.
 */
export type ControlMessage =
  /** The migration row changed; `row` is what it is now, where that fits into a message. */
  | { readonly t: "state"; readonly row?: unknown }
  /** The mirror passed a fence (decimal text) of this epoch. */
  | { readonly t: "passed"; readonly epoch: number; readonly fence: string }
  | { readonly t: "command" }
  /** Something was added to the timeline. */
  | { readonly t: "event" }
  /** What a sidecar acknowledges; absent when it left. Other sidecars hear of it when they want to know more of it. */
  | {
      readonly t: "sidecar";
      readonly id: string;
      readonly epoch?: number;
      readonly hold?: number | null;
    };

export type MessageHandler = (message: ControlMessage) => void;

const RETRY_MS = 300;

/**
 * Listens on the plan's channels and reconnects for ever: a listener that gave up would leave a sidecar blind while it
 * looks alive. What was sent while the connection was down is lost, so `onConnected` handlers must look for themselves.
 */
export class Listener {
  readonly #store: ControlStore;
  readonly #log: Log;
  readonly #audiences: readonly Audience[];
  readonly #handlers = new Set<MessageHandler>();
  readonly #connectedHandlers = new Set<() => void>();
  #subscriber: Subscriber | undefined;
  #connected = false;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(store: ControlStore, log: Log, audiences: readonly Audience[]) {
    this.#store = store;
    this.#log = log;
    this.#audiences = audiences;
    void this.#connect();
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Returns a function that takes the handler off again. */
  on(handler: MessageHandler): () => void {
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }

  /** Called after every (re)connection. */
  onConnected(handler: () => void): () => void {
    this.#connectedHandlers.add(handler);
    return () => this.#connectedHandlers.delete(handler);
  }

  /** Resolves with the next message that matches, or undefined after `ms`, on abort, or when the listener closes. Never rejects. */
  async next(
    matches: (message: ControlMessage) => boolean,
    ms: number,
    signal?: AbortSignal,
  ): Promise<ControlMessage | undefined> {
    return new Promise((resolve) => {
      const end = (message?: ControlMessage) => {
        off();
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        resolve(message);
      };
      const onAbort = () => end();
      const off = this.on((message) => {
        if (matches(message)) end(message);
      });
      const timer = setTimeout(end, ms);
      signal?.addEventListener("abort", onAbort);
      if (signal?.aborted === true) end();
    });
  }

  /**
   * Sends a message on this listener's own session, which is open and idle: a statement on the store's pool may have to wait
   * for a connection. It may get lost, like every message.
   */
  async notify(audience: Audience, message: ControlMessage): Promise<void> {
    if (!this.#connected) return;
    try {
      await this.#subscriber?.notify(channelOf(this.#store, audience), message);
    } catch (error) {
      this.#log.debug(
        { reason: redact(messageOf(error)) },
        "control store: a message was not sent",
      );
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#connected = false;
    clearTimeout(this.#retry);
    // An end() on a connection that is gone may never settle.
    await Promise.race([
      this.#subscriber?.close().catch(() => {}),
      new Promise((resolve) => setTimeout(resolve, 1_000).unref()),
    ]);
  }

  async #connect(): Promise<void> {
    const subscriber = this.#createSubscriber();
    this.#subscriber = subscriber;
    try {
      await subscriber.connect();
      for (const channel of this.#channels()) await subscriber.listenTo(channel);
      this.#onUp();
      subscriber.events.on("connected", () => this.#onUp());
    } catch (error) {
      subscriber.close().catch(() => {});
      if (this.#closed) return;
      this.#log.debug(
        { reason: redact(messageOf(error)) },
        "control store: cannot listen; trying again",
      );
      this.#retry = setTimeout(() => void this.#connect(), RETRY_MS);
    }
  }

  #createSubscriber(): Subscriber {
    const { url, plan, role, instance } = this.#store;
    const subscriber = pgListen.default(
      // query_timeout makes the paranoid check fail on a black-holed connection instead of waiting for ever.
      {
        connectionString: url,
        application_name: applicationName(plan, `listen ${role}`, instance),
        connectionTimeoutMillis: 5_000,
        query_timeout: 3_000,
      },
      { retryTimeout: 0, paranoidChecking: 5_000, retryInterval: () => this.#retryInterval() },
    );
    for (const channel of this.#channels())
      subscriber.notifications.on(channel, (message: ControlMessage) => this.#dispatch(message));
    subscriber.events.on("reconnect", () => {
      this.#connected = false;
    });
    subscriber.events.on("error", (error) => {
      if (!this.#closed)
        this.#log.debug({ reason: redact(messageOf(error)) }, "control store: listening failed");
    });
    return subscriber;
  }

  #channels(): readonly string[] {
    const own = this.#audiences.map((audience) => channelOf(this.#store, audience));
    return [this.#store.channel, ...own];
  }

  /** pg-listen's reconnection loop cannot be stopped from outside; throwing here ends it. */
  #retryInterval(): number {
    if (this.#closed) throw new Error("the listener is closed");
    return RETRY_MS;
  }

  #onUp(): void {
    if (this.#closed) {
      this.#subscriber?.close().catch(() => {});
      return;
    }
    this.#connected = true;
    for (const handler of this.#connectedHandlers) handler();
  }

  #dispatch(message: ControlMessage): void {
    for (const handler of this.#handlers) handler(message);
  }
}

/** Starts listening for what concerns everybody and these; returns at once, connected or not. */
export function listen(store: ControlStore, log: Log, ...audiences: readonly Audience[]): Listener {
  return new Listener(store, log, audiences);
}

/** Tells every sidecar that the mirror passed `fence` of `epoch`. */
export async function notifyPassed(
  store: ControlStore,
  epoch: number,
  fence: string | bigint,
): Promise<void> {
  const message: ControlMessage = { t: "passed", epoch, fence: String(fence) };
  await queryOften(store, "select pg_notify($1, $2)", [
    channelOf(store, "sidecars"),
    JSON.stringify(message),
  ]);
}
