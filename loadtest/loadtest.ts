import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CommanderError } from "commander";
import { EXIT, messageOf, PlanError } from "../config/errors.ts";
import { StepFailed } from "../examples/demo/failure.ts";
import { interruptSignal } from "../examples/demo/interrupt.ts";
import { type Budget, brokenText, judgeBudget, loadBudget } from "./load/budget.ts";
import { runExample } from "./load/example-run.ts";
import { measureWorkload, shotsOf } from "./load/measure.ts";
import { type LoadOptions, loadOptions } from "./load/options.ts";
import { renderPage } from "./load/page.ts";
import { LoadProgress } from "./load/progress.ts";
import { type Cell, type LoadReport, machineName, ratiosOf, textTable } from "./load/report.ts";

/** `npm run loadtest`: docs/loadtest.md. */
async function main(argv: readonly string[]): Promise<number> {
  const options = loadOptions(argv);
  // Before anything is started: nobody waits half an hour to learn of a typing error.
  const budget = options.budget === undefined ? undefined : loadBudget(options.budget);
  const signal = interruptSignal(() => process.exit(130));
  const started = new Date();
  const measured =
    options.service === undefined ? await example(options, signal) : await service(options, signal);
  const report = reportOf(options, { ...measured, started, budget });
  print(report, options);
  return report.budget?.ok === false ? EXIT.failed : EXIT.done;
}

type Measured = Pick<LoadReport, "flips" | "checked"> & { readonly cells: readonly Cell[] };

async function example(options: LoadOptions, signal: AbortSignal): Promise<Measured> {
  const quick = options.rounds * options.seconds <= 2;
  return runExample({
    ...options,
    conversations: quick ? 5_000 : 50_000,
    flips: quick ? 4 : 10,
    signal,
  });
}

async function service(options: LoadOptions, signal: AbortSignal): Promise<Measured> {
  const { target, through, request } = options.service!;
  using progress = new LoadProgress(shotsOf(options, through === undefined ? 1 : 2));
  const cells = await measureWorkload(
    { phase: null, workload: "request", direct: target, through, requests: () => [request] },
    options,
    { progress, signal },
  );
  return { cells, flips: null, checked: null };
}

function reportOf(
  { rounds, seconds, rate, connections, service: own }: LoadOptions,
  { started, budget, cells, ...rest }: Measured & { started: Date; budget: Budget | undefined },
): LoadReport {
  return {
    loadtest: own === undefined ? "example" : "target",
    machine: machineName(),
    started_at: started.toISOString(),
    seconds,
    rounds,
    rate,
    connections,
    // Without its query: that may hold a token.
    target:
      own === undefined
        ? null
        : `${new URL(own.target).origin}${new URL(own.request.path, own.target).pathname}`,
    cells: cells.map((cell) => ({ ...cell, ratios: ratiosOf(cell) })),
    ...rest,
    budget: budget === undefined ? null : judgeBudget(budget, cells),
  };
}

function print(report: LoadReport, { json, out }: LoadOptions): void {
  const text = json ? process.stderr : process.stdout;
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, "loadtest.json"), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(out, "loadtest.html"), renderPage(report));
  const { flips, checked, budget } = report;
  text.write(`${report.machine}\n${textTable(report.cells)}\n`);
  if (flips !== null) {
    const longest = Math.max(...flips.receipts.map(({ hold_ms }) => hold_ms?.max ?? Number.NaN));
    const undone = flips.receipts.filter(({ ok }) => !ok).length;
    text.write(
      `flips under load: ${flips.receipts.length} (${undone} undone), longest hold ${longest.toFixed(1)} ms, ${flips.figures.requests} requests, ${flips.figures.errors} errors\n`,
    );
  }
  if (checked !== null)
    text.write(`checked between: ${checked.failed} failed, ${checked.stale} stale\n`);
  text.write(`written: ${join(out, "loadtest.json")}, ${join(out, "loadtest.html")}\n`);
  if (budget !== null) {
    for (const limit of budget.broken) text.write(`over budget: ${brokenText(limit)}\n`);
    text.write(`budget: ${budget.ok ? "kept" : "broken"}, ${budget.compared} comparisons\n`);
  }
  if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
}

function tellFailure(error: unknown): number {
  // Commander has printed what is wrong.
  if (error instanceof CommanderError) return error.exitCode;
  process.stderr.write(`loadtest: ${messageOf(error)}\n`);
  if (error instanceof StepFailed && error.output !== "") process.stderr.write(`${error.output}\n`);
  if (!(error instanceof PlanError)) return EXIT.failed;
  if (error.hint !== undefined) process.stderr.write(`${error.hint}\n`);
  return EXIT.usage;
}

process.exitCode = await main(process.argv.slice(2)).catch(tellFailure);
// Handlers of the embedded server keep the process from ending by itself.
process.exit();
