import { Argument, Option } from "commander";
import { PHASES } from "../config/words.ts";
import type { Command } from "./command.ts";
import { request } from "./request.ts";

interface ApproveOptions {
  readonly as: string;
  readonly reason?: string;
}

export const approve: Command<ApproveOptions> = {
  name: "approve",
  summary: "records that a person approves a phase",
  details: `Phases that the plan lists under \`approvals\` need that many distinct people before they are entered. An approval stands in
the audit log and holds for one entry into the phase.`,
  examples: ['crossfade approve write-new --as "Ada" --reason "drill was at 40 ms"'],
  options: [
    new Option("--as <name>", "who approves").makeOptionMandatory(),
    new Option("--reason <text>", "why, for the audit log"),
  ],
  arguments: [new Argument("<phase>", "the phase that is approved").choices(PHASES.slice(1))],
  logLevel: "warn",
  async run(context, { as, reason }, [phase = ""]) {
    const result = (await request(context, "approve", {
      phase,
      as,
      ...(reason === undefined ? {} : { reason }),
    })) as { added: boolean };
    return {
      json: result,
      text: result.added ? `${as} approves ${phase}` : `${as} has approved ${phase} already`,
    };
  },
};
