import type { Phase } from "../../config/words.ts";
import type { Status } from "../status.ts";
import { ms, plural } from "./format.ts";

/** What the page says in words. Pure, so that tests can read it. */

/** What goes on in each phase. */
export const PHASE_MEANING: Readonly<Record<Phase, string>> = {
  off: "Nothing is installed. The old app answers everything.",
  "dual-write": "Changes of old are mirrored to new. The old app answers everything.",
  backfill:
    "The rows that were there before are copied to new, throttled, while changes go on being mirrored.",
  verify:
    "Every row of both sides is compared, repaired, and compared again until nothing differs.",
  shadow:
    "A sample of reads is also asked of the new app, and the answers are compared. Clients get old's.",
  canary: "A share of the clients gets its reads from the new app. Writes stay with old.",
  "read-new": "All reads are answered by new. Writes stay with old.",
  "write-new":
    "New has the authority and takes the writes. Old is kept whole by the reverse mirror, so going back loses nothing.",
  done: "The migration is over. Nothing is mirrored any more; the old tables are set aside.",
};

/** Whether entering a phase has to be confirmed by typing its name, and why. */
export function mustBeTyped(phase: Phase): string | undefined {
  if (phase === "write-new")
    return "This moves the authority: from then on new takes the writes. They wait for some milliseconds, none fails.";
  if (phase === "done")
    return "This ends the way back: mirrors, feeds and triggers are removed and the old tables are set aside.";
  return undefined;
}

export interface Verdict {
  readonly level: "well" | "attention" | "trouble";
  readonly text: string;
  readonly reasons: readonly string[];
}

/** The five-second answer. */
export function verdict(status: Status): Verdict {
  const trouble = [...status.problems];
  const attention: string[] = [];
  const running = status.phase !== "off" && status.phase !== "done" && status.phase !== "unknown";
  if (status.gap !== null) trouble.push(`gap: ${status.gap}`);
  if (!status.controller.leading && status.phase_since !== null)
    trouble.push("no controller leads: nothing advances or recovers");
  const mirrored = running && !(status.mirror.state === "waiting" && status.phase === "write-new");
  if (mirrored && status.mirror.state !== "running") {
    const why = status.mirror.why === null ? "" : `: ${status.mirror.why}`;
    (status.paused.mirror ? attention : trouble).push(`the mirror is ${status.mirror.state}${why}`);
  }
  if (status.backfill.state === "failed") trouble.push("chunks of the backfill failed");
  if (running && status.sidecars.length === 0) attention.push("no sidecar is registered");
  for (const sidecar of status.sidecars) {
    if (sidecar.seen_ms > 5_000)
      attention.push(`sidecar ${sidecar.id} was last seen ${ms(sidecar.seen_ms)} ago`);
    if (sidecar.new_app_down)
      attention.push(`sidecar ${sidecar.id}: the new app does not answer, old answers its reads`);
  }
  if (status.quarantine > 0) attention.push(`${plural(status.quarantine, "key")} in quarantine`);
  if (status.verify.state === "dirty") attention.push("the last comparison found differences");
  if (status.paused.backfill) attention.push("the backfill is paused");
  const reasons = [...trouble, ...attention];
  if (trouble.length > 0) return { level: "trouble", text: "Trouble", reasons };
  if (attention.length > 0) return { level: "attention", text: "Needs attention", reasons };
  return {
    level: "well",
    text: status.phase === "off" ? "Not started" : status.phase === "done" ? "Done" : "All is well",
    reasons,
  };
}
