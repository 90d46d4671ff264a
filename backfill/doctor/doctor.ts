import type { Plan } from "../../config/plan-types.ts";
import { SIDES } from "../../config/words.ts";
import { findState } from "../../store/postgres/state.ts";
import type { CompiledDirection, Driver } from "../../store/postgres/mapping.ts";
import { catalogFindings, tablesOf } from "./catalog-checks.ts";
import { deferFindings } from "./defer-findings.ts";
import { type Estimates, estimate } from "./estimate.ts";
import { type Coverage, type Examination, examine } from "./examine.ts";
import { count, type Finding, type Severity } from "./finding.ts";
import { Lab } from "./lab.ts";
import { lookupFindings } from "./lookup-checks.ts";
import { type RoundTrip, roundTrip } from "./round-trip.ts";
import { Source } from "./source.ts";

export interface DoctorOptions {
  /** Rows of each source table that are looked at; undefined: all. */
  readonly rows: number | undefined;
  /** ms that one statement may take. */
  readonly statementTimeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface Diagnosis {
  readonly findings: readonly Finding[];
  readonly coverage: readonly Coverage[];
  readonly roundTrip: RoundTrip | undefined;
  readonly estimates: Estimates;
}

/**
 * Looks at catalogs and data of both sides and says what would break: every mapping is run over the rows of its source, in
 * sessions whose transactions are read-only, into temporary tables that go with them. Changes nothing.
 */
export async function diagnose(
  plan: Plan,
  directions: readonly CompiledDirection[],
  options: DoctorOptions,
): Promise<Diagnosis> {
  const { statementTimeoutMs } = options;
  const forward = directions.find(({ direction }) => direction === "forward");
  const reverse = directions.find(({ direction }) => direction === "reverse");
  if (forward === undefined) throw new Error("a plan without forward was compiled");
  await using old = await Source.open(plan, "old", { limit: options.rows, statementTimeoutMs });
  await using next = await Source.open(plan, "new", { limit: options.rows, statementTimeoutMs });
  await using lab = await Lab.open({ plan, side: "new", statementTimeoutMs, shadows: true });
  const findings: Finding[] = [];
  const sessions = { old: old.client, new: next.client };
  const installed = (await next.aside(() => findState(next.client, "new"))) !== undefined;
  findings.push(...(await catalogFindings({ plan, directions, sessions, installed })));
  findings.push(...(await deferFindings(plan, forward)));
  for (const side of SIDES) {
    const source = side === "old" ? old : next;
    const tables = new Map(tablesOf(directions, side).map((table) => [table.name, table]));
    for (const direction of directions.filter(({ source: from }) => from === side))
      findings.push(...(await lookupFindings(direction, source, tables)));
  }
  const there = await examine({
    plan,
    compiled: forward,
    source: old,
    mapper: lab,
    target: lab,
    shadow: true,
    signal: options.signal,
  });
  findings.push(...there.findings);
  const coverage = [...there.coverage];
  let trip: RoundTrip | undefined;
  if (reverse !== undefined) {
    const proved = await roundTrip({ plan, forward, reverse, lab, examined: there });
    trip = proved.result;
    findings.push(...proved.findings);
    const back = await examineReverse(plan, reverse, next, options);
    findings.push(...(back?.findings ?? []));
    coverage.push(...(back?.coverage ?? []));
  }
  findings.push(...soundMappings(coverage, findings));
  return {
    findings: bySeverity(findings),
    coverage,
    roundTrip: trip,
    estimates: await estimate(lab, forward, there, plan.backfill.workers),
  };
}

/** The way back over rows that are on the new side already: before the start there are none, and the round trip speaks for it. */
async function examineReverse(
  plan: Plan,
  reverse: CompiledDirection,
  source: Source,
  { statementTimeoutMs, signal }: DoctorOptions,
): Promise<Examination | undefined> {
  const drivers: Driver[] = [];
  for (const driver of reverse.drivers)
    if ((await source.sample(driver)).total > 0) drivers.push(driver);
  if (drivers.length === 0) return undefined;
  await using mapper = await Lab.open({ plan, side: "new", statementTimeoutMs });
  await using target = await Lab.open({ plan, side: "old", statementTimeoutMs });
  const compiled = { ...reverse, drivers };
  // Awaited here: the sessions end with this function.
  return await examine({ plan, compiled, source, mapper, target, shadow: false, signal });
}

/** One `ok` for each mapping whose every looked-at row arrives, and an `unknown` where there were none to look at. */
function soundMappings(coverage: readonly Coverage[], findings: readonly Finding[]): Finding[] {
  const bad = findings.filter(({ severity }) => severity !== "ok").map(({ path }) => path);
  return coverage.flatMap(({ mapping, tried, rows, complete, how, table }): Finding[] => {
    if (rows === 0)
      return [
        {
          severity: "unknown",
          path: mapping,
          what: `${table} has no rows: the mapping is not proven by any`,
        },
      ];
    const named = (path: string) =>
      path.split(", ").some((one) => one === mapping || one.startsWith(`${mapping}.`));
    if (bad.some(named)) return [];
    if (tried === 0)
      return [
        {
          severity: "unknown",
          path: mapping,
          what: `no row of ${table} was tried (${how}): the mapping is not proven by any`,
        },
      ];
    const what = complete
      ? `all ${count(rows, "row")} of ${table} arrive`
      : `${count(tried, "row")} looked at arrive, of about ${rows.toLocaleString("en-US")} of ${table} (${how})`;
    return [{ severity: "ok", path: mapping, what, rows: tried }];
  });
}

const ORDER: Readonly<Record<Severity, number>> = { error: 0, warning: 1, unknown: 2, ok: 3 };

function bySeverity(findings: readonly Finding[]): Finding[] {
  return findings.toSorted((a, b) => ORDER[a.severity] - ORDER[b.severity]);
}
