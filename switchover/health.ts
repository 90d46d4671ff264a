import type { Status } from "./status.ts";

/** The five-second answer, the same in the console and in the terminal. */

export interface Health {
  readonly level: "well" | "attention" | "trouble";
  readonly text: string;
  readonly reasons: readonly string[];
}

/** Whether somebody has to look, and why. */
export function healthOf(status: Status): Health {
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
      attention.push(
        `sidecar ${sidecar.id} was last seen ${Math.round(sidecar.seen_ms / 1000)} s ago`,
      );
    if (sidecar.new_app_down)
      attention.push(`sidecar ${sidecar.id}: the new app does not answer, old answers its reads`);
  }
  const { went_back: went, quarantine } = status;
  if (went !== null) {
    attention.push(
      `went back by itself from ${went.from}: ${went.why}; not again by itself before ${went.until}`,
    );
  }
  if (status.maintenance !== null)
    attention.push(`maintenance: writes are answered with 503 (${status.maintenance})`);
  if (quarantine !== null && quarantine > 0)
    attention.push(`${quarantine} ${quarantine === 1 ? "key" : "keys"} in quarantine`);
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
