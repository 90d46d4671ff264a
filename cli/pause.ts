import { Argument } from "commander";
import type { Paused } from "../store/control/migration.ts";
import type { Command } from "./command.ts";
import { request } from "./request.ts";

const WHAT = new Argument("[what]", "backfill, mirror or all")
  .choices(["backfill", "mirror", "all"])
  .default("all");

export const pause: Command = {
  name: "pause",
  summary: "stops copying and mirroring until `resume`; traffic goes on",
  details: `The backfill stops between two chunks, the mirror between two passes. Nothing is lost: changes stay in the log, and the lag
grows meanwhile. Where reads are answered by the new side, they go back to the old one once the lag passes its gate.`,
  examples: ["crossfade pause", "crossfade pause backfill"],
  options: [],
  arguments: [WHAT],
  logLevel: "warn",
  async run(context, _, [what = "all"]) {
    return pausedResult((await request(context, "pause", { what })) as { paused: Paused });
  },
};

export const resume: Command = {
  name: "resume",
  summary: "goes on with what was paused; tries failed chunks again",
  details: `Copying and mirroring go on where they stopped. Chunks that failed five times are tried again: resume after removing the reason.`,
  examples: ["crossfade resume", "crossfade resume backfill"],
  options: [],
  arguments: [WHAT],
  logLevel: "warn",
  async run(context, _, [what = "all"]) {
    return pausedResult(
      (await request(context, "resume", { what })) as { paused: Paused; chunks_retried: number },
    );
  },
};

function pausedResult(result: { readonly paused: Paused; readonly chunks_retried?: number }) {
  const state = (paused: boolean) => (paused ? "paused" : "running");
  const retried =
    (result.chunks_retried ?? 0) > 0
      ? `\n${result.chunks_retried} failed chunks are tried again`
      : "";
  return {
    json: result,
    text: `backfill ${state(result.paused.backfill)}, mirror ${state(result.paused.mirror)}${retried}`,
  };
}
