import { signal } from "@preact/signals";
import { PHASES, phaseIndex } from "../../config/words.ts";
import type { Phase } from "../../config/words.ts";
import type { Receipt } from "../../store/control/history.ts";
import type { QuarantinedKey } from "../engine.ts";
import type { WalkResult } from "../walk.ts";
import { ApiError, command } from "./api.ts";
import { ms } from "./format.ts";
import { messageOf, refresh, refreshQuarantine, status } from "./state.ts";

/** What operators do. Every command runs through `run`: it shows that it runs, and how it ended. */

export interface Notice {
  readonly id: number;
  /** The command it is about. */
  readonly kind: string;
  readonly level: "well" | "trouble";
  readonly text: string;
  readonly hint: string | undefined;
}

export type Dialog =
  /** `preview` undefined: still being asked for; a text: why it cannot be had. */
  | { readonly kind: "advance"; readonly preview: WalkResult | string | undefined }
  | { readonly kind: "drill" | "verify" | "tune" | "approve" }
  | { readonly kind: "accept"; readonly key: QuarantinedKey };

/** Names of what runs now, by a number of its own. */
export const running = signal<ReadonlyMap<number, string>>(new Map());
export const notices = signal<readonly Notice[]>([]);
export const dialog = signal<Dialog | null>(null);

let serial = 0;

/** Runs a command and says how it ended. Returns whether it was done. */
export async function run(kind: string, args: object, name: string): Promise<boolean> {
  const id = ++serial;
  // Whoever tries again has read why it did not go the last time.
  notices.value = notices.value.filter((notice) => notice.kind !== kind);
  running.value = new Map([...running.value, [id, name]]);
  try {
    const result = await command<unknown>(kind, args);
    notify(kind, "well", `${name}: ${outcome(kind, result)}`);
    return true;
  } catch (error) {
    const hint = error instanceof ApiError ? error.hint : undefined;
    notify(kind, "trouble", `${name}: ${messageOf(error)}`, hint);
    return false;
  } finally {
    running.value = new Map([...running.value].filter(([other]) => other !== id));
    void refresh();
    if (kind.startsWith("quarantine")) void refreshQuarantine();
  }
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Long enough to be read; the timeline keeps it. */
const WELL_MS = 8_000;

/** What went well leaves by itself; what did not stays until somebody has read it. */
function notify(kind: string, level: Notice["level"], text: string, hint?: string): void {
  const notice = { id: ++serial, kind, level, text, hint };
  notices.value = [...notices.value.slice(-3), notice];
  if (level === "well") setTimeout(() => dismiss(notice.id), WELL_MS);
}

function outcome(kind: string, result: unknown): string {
  if (kind === "advance" || kind === "rollback") {
    const { phase, why, receipt } = result as WalkResult;
    return `${why ?? `phase is ${phase}`}${receipt === null ? "" : `, ${held(receipt)}`}`;
  }
  if (kind === "drill") return held((result as { receipt: Receipt }).receipt);
  if (kind === "verify") return (result as { run: { state: string } }).run.state;
  return "done";
}

function held({ writes_held, hold_ms, failed }: Receipt): string {
  if (writes_held === null || hold_ms === null) return "no sidecar measured the hold";
  return `${writes_held} writes held, longest ${ms(hold_ms.max)}, ${failed ?? "unknown"} failed`;
}

/** The dry run comes first, always: what would happen, and what stands in the way. */
export async function advanceDialog(to?: Phase): Promise<void> {
  dialog.value = { kind: "advance", preview: undefined };
  const preview = await command<WalkResult>("advance", {
    dryRun: true,
    ...(to === undefined ? {} : { to }),
  }).catch(messageOf);
  // Closed, or asked again, while it was on its way.
  if (dialog.value?.kind === "advance" && dialog.value.preview === undefined)
    dialog.value = { kind: "advance", preview };
}

export function acceptDialog(key: QuarantinedKey): void {
  dialog.value = { kind: "accept", key };
}

/** Phases a rollback may go to, the nearest first; none: why there is no way back. */
export function waysBack(): readonly Phase[] | string {
  const phase = status.value?.phase;
  if (phase === undefined || phase === "unknown") return "Where the migration stands is unknown.";
  if (phase === "off") return "Nothing has begun, so there is nothing to go back from.";
  if (phase === "done")
    return "From done there is no way back: nothing follows the old schema any more. Going back means restoring a backup.";
  return PHASES.slice(0, phaseIndex(phase)).toReversed();
}
