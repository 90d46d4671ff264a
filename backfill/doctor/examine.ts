import { CrossfadeError } from "../../config/errors.ts";
import { allMappings, type Driver, type Reader } from "../../store/postgres/mapping.ts";
import { keyOf } from "../../store/postgres/key-scope.ts";
import type { Finding } from "./finding.ts";
import type { Staged } from "./lab.ts";
import { lostRows, repeatedKeys } from "./reader-findings.ts";
import { sequenceFindings } from "./sequence-checks.ts";
import type { Sample } from "./source.ts";
import { createStandIn } from "./stand-in.ts";
import { type Made, targetFindings } from "./target-rules.ts";
import type { Trial } from "./trial.ts";
import { type ExamineInput, keyList, tryRows } from "./try-rows.ts";
import { unlessUnknown } from "./unknown.ts";

/** What of a mapping was looked at. */
export interface Coverage {
  readonly mapping: string;
  readonly table: string;
  /** Rows of the source table: counted if all were looked at, else estimated. */
  readonly rows: number;
  readonly tried: number;
  readonly complete: boolean;
  readonly how: string;
}

/** What is left of a driving table for the round trip. */
export interface DriverRows {
  readonly driver: Driver;
  readonly sample: Sample;
  /** Its own rows as they are, unless every reader is a query. */
  readonly staged: Staged | undefined;
  /** Keys that some mapping does not carry, each `select cf_k0, … from …`. */
  readonly leftOut: readonly string[];
  /** Too many rows failed: which others would is not known. */
  readonly untried: number;
}

export interface Examination {
  readonly findings: readonly Finding[];
  readonly coverage: readonly Coverage[];
  readonly drivers: ReadonlyMap<string, DriverRows>;
  /** Stand-ins by target table, for sizes. */
  readonly standIns: ReadonlyMap<string, string>;
  readonly trials: readonly Trial[];
  /** Target tables some of whose mappings could not be tried: what is missing there says nothing. */
  readonly open: ReadonlySet<string>;
  /** ms spent on reading, making and inserting, by driving table. */
  readonly spentMs: ReadonlyMap<string, number>;
}

/** Runs every mapping of a direction over the rows of its source, and tells what would not arrive. Changes nothing. */
export async function examine(input: ExamineInput): Promise<Examination> {
  const { compiled, target, shadow, source } = input;
  const findings: Finding[] = [];
  const coverage: Coverage[] = [];
  const drivers = new Map<string, DriverRows>();
  const trials: Trial[] = [];
  const spentMs = new Map<string, number>();
  const standIns = new Map<string, string>();
  const open = new Set<string>();
  for (const { mapping } of allMappings(compiled)) {
    const { name } = mapping.target;
    if (standIns.has(name) || open.has(name)) continue;
    const standIn = await unlessUnknown(findings, [mapping.path], () =>
      createStandIn(target, mapping.target, shadow ? name : target.name()),
    );
    if (standIn === undefined) open.add(name);
    else standIns.set(name, standIn);
  }
  for (const driver of compiled.drivers) {
    stopIfAsked(input.signal);
    const began = performance.now();
    const sample = await source.sample(driver);
    let plain: Staged | undefined;
    const leftOut: string[] = [];
    let untried = 0;
    for (const reader of driver.readers) {
      const staged = await unlessUnknown(findings, pathsOf(reader), () =>
        stageReader(input, driver, reader),
      );
      if (staged === undefined) {
        for (const { target: unmade } of reader.mappings) open.add(unmade.name);
        continue;
      }
      if (reader.query === undefined) plain = staged;
      untried += staged.skipped;
      leftOut.push(
        ...keyList(
          driver,
          staged.lost.map(({ row }) => keyOf(driver, reader, row)),
        ),
      );
      findings.push(
        ...lostRows(input, driver, reader, staged),
        ...(await repeatedKeys(input, driver, reader, staged)),
      );
      for (const mapping of reader.mappings) {
        const { path } = mapping;
        const standIn = standIns.get(mapping.target.name);
        if (standIn === undefined) continue;
        const tried = await unlessUnknown(findings, [path], () =>
          tryRows(input, { driver, reader, mapping }, staged, standIn),
        );
        if (tried === undefined) {
          open.add(mapping.target.name);
          continue;
        }
        trials.push(tried.trial);
        leftOut.push(...tried.leftOut);
        untried += tried.untried;
        findings.push(...tried.findings);
        coverage.push({
          mapping: path,
          table: driver.name,
          rows: sample.complete ? sample.total : Math.max(sample.total, staged.rows),
          tried: staged.rows - tried.untried,
          complete:
            sample.complete && tried.untried + staged.skipped === 0 && staged.lost.length === 0,
          how: sample.how,
        });
      }
    }
    drivers.set(driver.name, { driver, sample, staged: plain, leftOut, untried });
    spentMs.set(driver.name, performance.now() - began);
  }
  const made = madeByTarget(trials, drivers);
  const context = { lab: target, compiled, verify: input.plan.verify, made, open };
  for (const one of made.values()) {
    stopIfAsked(input.signal);
    findings.push(...(await targetFindings(context, one)));
  }
  findings.push(...(await sequenceFindings(target, compiled, made)));
  return { findings, coverage, drivers, standIns, trials, open, spentMs };
}

function stopIfAsked(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true)
    throw new CrossfadeError("FAILED", "stopped before everything was looked at");
}

const pathsOf = (reader: Reader) => reader.mappings.map(({ path }) => path);

async function stageReader(
  { compiled, source, mapper }: ExamineInput,
  driver: Driver,
  reader: Reader,
): Promise<Staged> {
  const rows = await source.rowsOf(compiled, driver, reader);
  return source.attempt(() => mapper.stage(source.client, rows, reader.columns));
}

function madeByTarget(
  trials: readonly Trial[],
  drivers: ReadonlyMap<string, DriverRows>,
): Map<string, Made> {
  const made = new Map<string, Made>();
  for (const trial of trials) {
    const { target } = trial.mapping;
    const known = made.get(target.name);
    const complete = drivers.get(trial.driver.name)?.sample.complete === true;
    made.set(target.name, {
      target,
      trials: [...(known?.trials ?? []), trial],
      complete: (known?.complete ?? true) && complete,
    });
  }
  return made;
}
