import type { Effect } from "./machine.ts";

/** What an effect of a dry run would do. */
export function effectMeaning(effect: Effect): string {
  switch (effect.do) {
    case "check":
      return "check both catalogs and every mapping; change nothing";
    case "install":
      return "install feed, guard and state on both sides";
    case "plan-chunks":
      return "cut every table into chunks for the backfill";
    case "defer":
      return "drop on new what backfill.defer names; it is built again before verify";
    case "rebuild":
      return "build on new what was dropped for the copy";
    case "forget-chunks":
      return "forget how far the backfill came";
    case "verify":
      return "compare every row, repair, and compare again until a run is clean";
    case "set":
      return `set ${[
        effect.change.phase === undefined ? "" : `the phase to ${effect.change.phase}`,
        effect.change.readsNew === undefined
          ? ""
          : `the reads answered by new to ${Math.round(effect.change.readsNew * 1000) / 10} %`,
      ]
        .filter((part) => part !== "")
        .join(" and ")}`;
    case "flip":
      return `flip: ${effect.to} takes the writes; they are held for a moment while authority moves`;
    case "teardown":
      return "remove feeds, mirror and guards; rename the old tables aside";
    case "uninstall":
      return "remove everything that was installed on both sides";
  }
}
