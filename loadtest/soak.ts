import Table from "cli-table3";
import { CommanderError } from "commander";
import { EXIT, messageOf } from "../config/errors.ts";
import { logFiles } from "../examples/demo/cli.ts";
import { StepFailed } from "../examples/demo/failure.ts";
import { interruptSignal } from "../examples/demo/interrupt.ts";
import { createWorkspace } from "../examples/demo/workspace.ts";
import { machineName } from "./load/report.ts";
import { type SoakOptions, soakOptions } from "./soak/options.ts";
import { runSoak, type SoakTrouble } from "./soak/run.ts";
import { judgeSoak, type SoakFindings, type SoakVerdict } from "./soak/verdict.ts";

/** `npm run soak`: docs/loadtest.md. */
async function main(argv: readonly string[]): Promise<number> {
  const options = soakOptions(argv);
  const signal = interruptSignal(() => process.exit(130));
  const workspace = createWorkspace();
  const say = (text: string) => void process.stderr.write(`${text}\n`);
  let keepLogs = true;
  try {
    const { findings, trouble } = await runSoak({ options, workspace, signal, say });
    const verdict = judgeSoak(findings);
    keepLogs = !verdict.ok;
    print(options, findings, verdict, trouble);
    return verdict.ok ? EXIT.done : EXIT.failed;
  } finally {
    keepLogs &&= !signal.aborted;
    if (keepLogs) say(`logs: ${logFiles(workspace.logs)}`);
    workspace.remove({ keepLogs });
  }
}

function print(
  { json, minutes, flipEvery }: SoakOptions,
  findings: SoakFindings,
  { ok, wrong, memory }: SoakVerdict,
  trouble: SoakTrouble,
): void {
  const text = json ? process.stderr : process.stdout;
  const { requests, writes, websockets, events, uploads, flips } = findings;
  const table = new Table({ style: { head: [], border: [], compact: true } });
  const parts = { requests, writes, websockets, events, uploads };
  for (const [part, counts] of Object.entries(parts))
    table.push([
      part,
      Object.entries(counts ?? {})
        .map(countText)
        .join(", "),
    ]);
  // 0: none was held, or nobody flipped.
  const longest = Math.max(0, ...flips.receipts.map(({ hold_ms }) => hold_ms?.max ?? 0));
  table.push([
    "flips",
    `${flips.receipts.length} (${flips.undone.length} more undone), longest hold ${longest.toFixed(1)} ms`,
  ]);
  table.push([
    "memory",
    `first third ${memory.first_third_mb.toFixed(1)} MB, last third ${memory.last_third_mb.toFixed(1)} MB (medians), ${memory.slope_mb_per_minute.toFixed(2)} MB/min`,
  ]);
  text.write(
    `${machineName()}; ${minutes} minutes, a flip every ${flipEvery} s\n${table.toString()}\n`,
  );
  for (const sentence of wrong) text.write(`wrong: ${sentence}\n`);
  for (const { client, request, why } of [...trouble.traffic.failures, ...trouble.traffic.stales])
    text.write(`  ${client} ${request} ${why}\n`);
  for (const { at, who, why } of trouble.others) text.write(`  ${at} s: ${who}: ${why}\n`);
  for (const example of trouble.lost) text.write(`  lost: ${JSON.stringify(example)}\n`);
  text.write(`soak: ${ok ? "passed" : "failed"}\n`);
  if (!json) return;
  const { memory: samples, ...rest } = findings;
  const document = { soak: "example", machine: machineName(), minutes, flip_every_s: flipEvery };
  process.stdout.write(
    `${JSON.stringify({ ...document, ok, wrong, ...rest, memory: { ...memory, mb: samples.map(({ mb }) => Math.round(mb * 10) / 10) }, trouble })}\n`,
  );
}

function countText([name, count]: readonly [string, unknown]): string {
  return typeof count === "number" ? `${name} ${count.toLocaleString("en-US")}` : name;
}

function tellFailure(error: unknown): number {
  // Commander has printed what is wrong.
  if (error instanceof CommanderError) return error.exitCode;
  process.stderr.write(`soak: ${messageOf(error)}\n`);
  if (error instanceof StepFailed && error.output !== "") process.stderr.write(`${error.output}\n`);
  return EXIT.failed;
}

process.exitCode = await main(process.argv.slice(2)).catch(tellFailure);
// Handlers of the embedded server keep the process from ending by itself.
process.exit();
