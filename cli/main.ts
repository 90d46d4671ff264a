import { COMMANDS } from "./commands.ts";
import { Output } from "./output.ts";
import { runProgram } from "./program.ts";
import { isSupervised } from "./signals.ts";
import type { ChildMessage } from "./supervisor.ts";

/** The CLI's entry: the one place that exits. */
const args = process.argv.slice(2);
const told: Promise<void>[] = [];
const output = new Output(
  args.includes("--json"),
  process,
  isSupervised() ? (error) => told.push(tell({ t: "failed", error })) : undefined,
);

const exit = await runProgram(COMMANDS, args, output);
await Promise.all(told);
process.exit(exit);

async function tell(message: ChildMessage): Promise<void> {
  await new Promise<void>((resolve) => {
    if (process.connected && process.send !== undefined)
      process.send(message, undefined, undefined, () => resolve());
    else resolve();
  });
}
