import type { Receipt } from "../../store/control/history.ts";
import type { CheckResult } from "../support/check-schemas.ts";
import type { TrafficCounters } from "../support/traffic-counters.ts";
import { receiptText, type Screen } from "./screen.ts";

/** What the demo proves, or does not. */
export interface Verdict {
  readonly ok: boolean;
  readonly seconds: number;
  readonly requests: number;
  readonly failed: number;
  readonly writes: {
    readonly acknowledged: number;
    readonly in_both: number;
    readonly lost: number;
  };
  readonly rows: { readonly compared: number; readonly different: number };
  readonly reads: { readonly checked: number; readonly stale: number };
  readonly flips: readonly Receipt[];
}

/** What was found out on the way. */
export interface Findings {
  readonly started: number;
  traffic: TrafficCounters | undefined;
  /** The walk went to its end. */
  complete: boolean;
  /** Rows of all comparisons; `different`: missing and extra ones too. */
  rows: { compared: number; different: number };
  /** The last look at every acknowledged write. */
  writes: CheckResult | undefined;
  readonly flips: Receipt[];
}

export function newFindings(): Findings {
  return {
    started: performance.now(),
    traffic: undefined,
    complete: false,
    rows: { compared: 0, different: 0 },
    writes: undefined,
    flips: [],
  };
}

/** Nothing that went wrong is no proof if nothing was looked at. */
export function judge(findings: Findings): Verdict {
  const { traffic, rows, flips, complete } = findings;
  const { acknowledged = 0, in_both = 0, lost = 0 } = findings.writes ?? {};
  const requests = traffic?.requests ?? 0;
  const failed = traffic?.failed ?? 0;
  const { checked, stale } = traffic?.reads ?? { checked: 0, stale: 0 };
  const looked = [requests, acknowledged, rows.compared, checked].every((count) => count > 0);
  const wrong = failed + lost + rows.different + stale;
  return {
    ok: complete && looked && wrong === 0,
    seconds: Math.round((performance.now() - findings.started) / 100) / 10,
    requests,
    failed,
    writes: { acknowledged, in_both, lost },
    rows: { ...rows },
    reads: { checked, stale },
    flips: [...flips],
  };
}

/** The verdict and, where something went wrong, the first examples. */
export function printVerdict(screen: Screen, verdict: Verdict, findings: Findings): void {
  const { writes, rows, reads } = verdict;
  const number = (value: number) => value.toLocaleString("en-US");
  screen.line("");
  screen.line(`VERDICT: ${headline(verdict, findings)}`);
  screen.line(`  requests  ${number(verdict.requests)}, failed ${number(verdict.failed)}`);
  screen.line(
    `  writes    ${number(writes.acknowledged)} acknowledged, ${number(writes.in_both)} in both schemas with the right content, lost ${number(writes.lost)}`,
  );
  screen.line(`  rows      ${number(rows.compared)} compared, different ${number(rows.different)}`);
  screen.line(
    `  reads     ${number(reads.checked)} answers checked against what their client wrote, stale ${number(reads.stale)}`,
  );
  for (const receipt of verdict.flips) screen.line(`  ${receiptText(receipt)}`);
  screen.line(`  ${verdict.seconds} s`);
  printExamples(screen, findings);
}

function headline({ ok }: Verdict, { complete }: Findings): string {
  if (ok) return "nothing failed, nothing lost, nothing different, nothing stale";
  return complete ? "not good" : "not finished";
}

function printExamples(screen: Screen, { traffic, writes }: Findings): void {
  for (const { client, request, why } of traffic?.failures ?? [])
    screen.line(`  failed: ${client} ${request} ${why}`);
  for (const { client, request, why } of traffic?.stales ?? [])
    screen.line(`  stale: ${client} ${request} ${why}`);
  for (const { id, side, expected, found } of writes?.examples ?? []) {
    const [must, is] = [JSON.stringify(expected), JSON.stringify(found)];
    screen.line(`  lost on ${side}: conversation ${id} is ${is}, must be ${must}`);
  }
}
