import { advance } from "./advance.ts";
import { approve } from "./approve.ts";
import { backfill } from "./backfill.ts";
import { backup } from "./backup.ts";
import { check } from "./check.ts";
import { clean } from "./clean.ts";
import { control } from "./control.ts";
import { drill } from "./drill.ts";
import { grants } from "./grants.ts";
import { init } from "./init.ts";
import { maintenance } from "./maintenance.ts";
import { mirror } from "./mirror.ts";
import { Output } from "./output.ts";
import { pause, resume } from "./pause.ts";
import { runProgram } from "./program.ts";
import { proxy } from "./proxy.ts";
import { quarantine } from "./quarantine.ts";
import { report } from "./report.ts";
import { rollback } from "./rollback.ts";
import { isSupervised } from "./signals.ts";
import { schema } from "./schema.ts";
import { status } from "./status.ts";
import type { ChildMessage } from "./supervisor.ts";
import { tune } from "./tune.ts";
import { up } from "./up.ts";
import { verify } from "./verify.ts";

/** In the order in which a migration meets them. */
const COMMANDS = [
  init,
  schema,
  check,
  grants,
  up,
  status,
  advance,
  rollback,
  drill,
  verify,
  quarantine,
  approve,
  pause,
  resume,
  maintenance,
  report,
  backup,
  tune,
  clean,
  proxy,
  mirror,
  backfill,
  control,
];

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
