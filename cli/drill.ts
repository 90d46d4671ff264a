import type { Receipt } from "../store/control/history.ts";
import type { Command } from "./command.ts";
import { request } from "./request.ts";
import { ms, receiptText } from "./status-view.ts";
import { WAIT } from "./walk-command.ts";

export const drill: Command<{ readonly wait?: boolean }> = {
  name: "drill",
  summary: "rehearses a flip under live traffic and ends where it began",
  details: `Does everything a flip does (holds writes, closes the guard, waits for the mirror) up to the moment before its decision,
then lets go. Its receipt says how long writes would wait in the real one. Needs a running sidecar and mirror.`,
  examples: ["crossfade drill", "crossfade drill --wait --json"],
  options: [WAIT],
  logLevel: "warn",
  async run(context, options) {
    const { receipt } = (await request(context, "drill", { wait: options.wait === true })) as {
      receipt: Receipt;
    };
    const steps = receipt.steps.map((step) => `  ${step.name.padEnd(24)} ${ms(step.ms)}`);
    return { json: receipt, text: [receiptText(receipt), ...steps].join("\n") };
  },
};
