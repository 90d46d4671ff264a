import type { Phase } from "../../config/words.ts";

/** What the page says in words. */

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
