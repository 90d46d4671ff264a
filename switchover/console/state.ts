import { computed, effect, signal } from "@preact/signals";
import type { ApiRole } from "../../config/operator-tokens.ts";
import type { Receipt } from "../../store/control/history.ts";
import type { QuarantinedKey } from "../engine.ts";
import type { SeriesDocument, SeriesRange } from "../../store/control/series.ts";
import type { Status } from "../status.ts";
import { ApiError, follow, get, token } from "./api.ts";
import type { StreamEvent } from "./api.ts";

/** Everything the page shows, and the loops that keep it true. */

export interface Session {
  readonly plan: string;
  /** Whether the API asks for tokens at all. */
  readonly tokens: boolean;
  readonly role: ApiRole;
  /** Of a token with a name: approvals are given under no other. */
  readonly name: string | null;
}

export interface TimelineEntry {
  readonly id: number;
  readonly at: string;
  readonly kind: string;
  readonly by: string;
  readonly phase: string;
  readonly epoch: number;
  readonly detail: Readonly<Record<string, unknown>>;
}

export type DatedReceipt = Receipt & { readonly at: string };

/** undefined: not asked yet; null: a token is needed. */
export const session = signal<Session | null | undefined>(undefined);
export const loginError = signal<string | null>(null);
export const status = signal<Status | undefined>(undefined);
/** When the status shown was read, by this browser's clock. */
export const statusAt = signal(0);
export const timeline = signal<readonly TimelineEntry[]>([]);
export const quarantine = signal<readonly QuarantinedKey[]>([]);
export const series = signal<SeriesDocument | undefined>(undefined);
export const range = signal<SeriesRange>("recent");
/** Why what is shown may be old; null: it is live. */
export const offline = signal<string | null>(null);
export const now = signal(Date.now());

/** The speed of the mirror, from the newest of the last points that knows it: older ones say nothing of now. */
export const keysPerSecond = computed(
  () => series.value?.keys_per_s.slice(-3).findLast((value) => value !== null) ?? null,
);

const SERIES_MS = 2_000;
/** The stream says something every second: silence means that it is cut. */
const SILENCE_MS = 6_000;
const AGAIN_MS = 1_000;
const MAX_ENTRIES = 1_000;

export function may(needed: ApiRole): boolean {
  const roles: readonly ApiRole[] = ["viewer", "operator", "approver"];
  const role = session.value?.role;
  return role !== undefined && roles.indexOf(role) >= roles.indexOf(needed);
}

/** Asks who we are; with `entered`, with that token. */
export async function enter(entered?: string): Promise<void> {
  if (entered !== undefined) token.set(entered);
  try {
    session.value = await get<Session>("v1/session");
    loginError.value = null;
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      token.forget();
      if (entered !== undefined)
        loginError.value = "This token is not known here. operate.tokens of the plan lists them.";
      session.value = null;
      return;
    }
    offline.value = messageOf(error);
    setTimeout(() => void enter(), 2_000);
  }
}

export function leave(): void {
  token.forget();
  status.value = undefined;
  timeline.value = [];
  quarantine.value = [];
  series.value = undefined;
  session.value = null;
}

/** Whoever changed something does not wait for the stream. */
export async function refresh(): Promise<void> {
  await guarded(async () => {
    show(await get<Status>("v1/status"));
  });
}

async function refreshTimeline(): Promise<void> {
  await guarded(async () => {
    add(await get<TimelineEntry[]>("v1/timeline"));
  });
}

/** Adds what is not there yet: the stream and the list overlap. */
function add(entries: readonly TimelineEntry[]): void {
  const known = new Map([...timeline.value, ...entries].map((entry) => [entry.id, entry]));
  timeline.value = [...known.values()].toSorted((a, b) => a.id - b.id).slice(-MAX_ENTRIES);
}

export async function refreshQuarantine(): Promise<void> {
  await guarded(async () => {
    quarantine.value = await get<QuarantinedKey[]>("v1/quarantine");
  });
}

async function refreshSeries(): Promise<void> {
  await guarded(async () => {
    series.value = await get<SeriesDocument>(`v1/series?range=${range.value}`).catch(lastKnown);
  });
}

/** Without the control store the charts stand still; the stream says what is wrong. */
function lastKnown(error: unknown): SeriesDocument | undefined {
  if (error instanceof ApiError && error.status >= 500) return series.value;
  throw error;
}

function show(read: Status): void {
  const before = status.value;
  status.value = read;
  statusAt.value = Date.now();
  offline.value = null;
  // Accepted keys are in the list and not in the number: it is asked for whatever the number says.
  const moved = before?.quarantine !== read.quarantine || before.phase !== read.phase;
  if (moved || before.authority !== read.authority) void refreshQuarantine();
}

async function guarded(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) leave();
    else offline.value = messageOf(error);
  }
}

/** Runs while somebody is logged in. */
export function keepLive(): void {
  setInterval(() => (now.value = Date.now()), 1_000);
  effect(() => {
    if (session.value === null || session.value === undefined) return;
    const ending = new AbortController();
    void refreshTimeline();
    void repeat(refreshSeries, SERIES_MS, ending.signal);
    void stream(ending.signal);
    return () => ending.abort();
  });
  effect(() => {
    if (range.value !== "recent" || series.peek() !== undefined) void refreshSeries();
  });
}

/** One after the other: a slow answer is waited for, not overtaken. A page nobody looks at asks for nothing. */
async function repeat(
  work: () => Promise<void>,
  everyMs: number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if (document.visibilityState === "visible") await work();
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** Shows events the moment they happen. A stream that is cut is opened again, and the page says that it is not live. */
async function stream(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const silent = new AbortController();
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = window.setTimeout(() => silent.abort(), SILENCE_MS);
    };
    heard();
    try {
      await follow(
        "v1/events",
        { onEvent, onBytes: heard },
        AbortSignal.any([signal, silent.signal]),
      );
      offline.value = "the controller ended the stream";
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) leave();
      else if (!signal.aborted)
        offline.value = silent.signal.aborted ? "the controller is silent" : messageOf(error);
    } finally {
      clearTimeout(timer);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function onEvent({ event, data }: StreamEvent): void {
  if (event === "status") show(JSON.parse(data) as Status);
  if (event !== "timeline") return;
  const entry = JSON.parse(data) as TimelineEntry;
  add([entry]);
  if (entry.kind.startsWith("quarantine")) void refreshQuarantine();
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
