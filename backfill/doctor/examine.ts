import type { Plan } from "../../config/plan-types.ts";
import { messageOf } from "../../config/errors.ts";
import {
  allMappings,
  type CompiledDirection,
  type Driver,
  type Mapping,
  type Reader,
} from "../../store/postgres/mapping.ts";
import { ident, literal, relation } from "../../store/postgres/quote.ts";
import { sqlState } from "../../store/postgres/session.ts";
import type { TextRow } from "../../store/postgres/statement.ts";
import { keyOf } from "../../store/postgres/key-scope.ts";
import { keyTexts } from "../../store/postgres/sync-sql.ts";
import { count, exampleKey, exampleMessage, type Finding, type Fix } from "./finding.ts";
import type { Lab, Staged } from "./lab.ts";
import { strayRows } from "./own-rules.ts";
import { brokenRules, insertMade, type RowRule, rowRules } from "./row-rules.ts";
import type { Sample, Source } from "./source.ts";
import { createStandIn } from "./stand-in.ts";
import { type Made, targetFindings } from "./target-rules.ts";
import { type Failure, type Trial, tryMapping } from "./trial.ts";

export interface ExamineInput {
  readonly plan: Plan;
  readonly compiled: CompiledDirection;
  readonly source: Source;
  /** Where expressions run. */
  readonly mapper: Lab;
  /** Where the rows made go to; the same session if that is the new side. */
  readonly target: Lab;
  /** Stand-ins under the names of their tables, so that later mappings and the way back read them. */
  readonly shadow: boolean;
}

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

interface Tried {
  readonly trial: Trial;
  readonly findings: readonly Finding[];
  readonly leftOut: readonly string[];
  readonly untried: number;
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
          tryOne(input, { driver, reader, mapping }, staged, standIn),
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
  for (const one of made.values()) findings.push(...(await targetFindings(context, one)));
  return { findings, coverage, drivers, standIns, trials, open, spentMs };
}

const pathsOf = (reader: Reader) => reader.mappings.map(({ path }) => path);

/** Whatever else the database refuses (a time-out, a missing privilege, a function that writes) leaves the question open. */
export async function unlessUnknown<T>(
  findings: Finding[],
  paths: readonly string[],
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    const state = sqlState(error);
    if (state === undefined || state.startsWith("57P")) throw error;
    for (const path of paths)
      findings.push({
        severity: "unknown",
        path,
        what: `could not be tried: ${reasonOf(state, error)}`,
      });
    return undefined;
  }
}

function reasonOf(state: string, error: unknown): string {
  if (state === "57014") return "it took longer than a statement of check may";
  if (state === "25006") return `it writes, and check changes nothing (${messageOf(error)})`;
  return messageOf(error);
}

async function stageReader(
  { compiled, source, mapper }: ExamineInput,
  driver: Driver,
  reader: Reader,
): Promise<Staged> {
  const rows = await source.rowsOf(compiled, driver, reader);
  return source.attempt(() => mapper.stage(source.client, rows, reader.columns));
}

/** Rows that do not even arrive: an enum without their label, an encoding without their characters. */
function lostRows(
  { plan, compiled }: ExamineInput,
  driver: Driver,
  reader: Reader,
  { lost, skipped }: Staged,
): Finding[] {
  const [first] = lost;
  if (first === undefined) return [];
  const broken = reader.mappings.map(({ path }): Finding => ({
    severity: "error",
    path,
    what: `${skipped > 0 ? "at least " : ""}${count(lost.length, "row")} of ${driver.name} cannot be carried to the new database as they are`,
    rows: lost.length,
    example: {
      key: exampleKey(plan.verify, driver.name, driver.key, keyOf(driver, reader, first.row)),
      message: exampleMessage(plan.verify, first.error),
    },
    fix: rowsTemplate(compiled, driver, {}),
  }));
  return skipped === 0
    ? broken
    : [...broken, ...reader.mappings.map(({ path }) => notTried(path, skipped))];
}

/** Sync refuses a `query` that yields two rows for one driving key. */
async function repeatedKeys(
  { plan, mapper }: ExamineInput,
  driver: Driver,
  reader: Reader,
  { table }: Staged,
): Promise<Finding[]> {
  if (reader.query === undefined) return [];
  const names = driver.key.map(({ name }) => ident(name)).join(", ");
  const texts = driver.key.map(({ name }) => `${ident(name)}::text`).join(", ");
  const [row] = await mapper.select(
    `select count(*) over ()::text, ${texts} from ${table} group by ${names} having count(*) > 1 order by min(cf_n) limit 1`,
  );
  if (row === undefined) return [];
  const [n, ...key] = row;
  return reader.mappings.map(({ path }) => ({
    severity: "error",
    path: `${path}.from.query`,
    what: `the query yields more than one row for ${count(Number(n), "key")} of ${driver.name}`,
    rows: Number(n),
    example: { key: exampleKey(plan.verify, driver.name, driver.key, key) },
    fix: {
      where: "plan",
      text: "aggregate, or join on a unique key, so that each row of the driving table is there once",
      destructive: false,
    },
  }));
}

const notTried = (path: string, rows: number): Finding => ({
  severity: "unknown",
  path,
  what: `${count(rows, "row")} not tried, because too many failed before; put these right and check again`,
  rows,
});

async function tryOne(
  input: ExamineInput,
  part: { driver: Driver; reader: Reader; mapping: Mapping },
  staged: Staged,
  standIn: string,
): Promise<Tried> {
  const { mapper, target } = input;
  const { driver, mapping } = part;
  const here = await tryMapping(mapper, part, staged);
  const carried = mapper === target ? undefined : await carry(mapper, target, here);
  const trial = carried === undefined ? here : { ...here, made: carried.table };
  const { asked, broken } = await brokenRules(target, trial, await rowRules(target, trial));
  const inserted = await insertMade(target, trial, standIn, asked);
  const failures = [...here.failures, ...inserted.failures];
  const untried = here.untried + inserted.untried;
  const findings = [
    ...(await strayRows(mapper, part, { staged, trial: here, verify: input.plan.verify })),
    ...failures.map((failure) => failureFinding(input, part, failure, untried)),
    ...(carried?.lost ?? []).slice(0, 1).map(({ row, error }): Finding => ({
      severity: "error",
      path: mapping.path,
      what: `${count(carried?.lost.length ?? 0, "row")} made do not fit the types of ${mapping.target.name}`,
      rows: carried?.lost.length ?? 0,
      example: {
        key: exampleKey(
          input.plan.verify,
          driver.name,
          driver.key,
          row.slice(mapping.columns.length),
        ),
        message: exampleMessage(input.plan.verify, error),
      },
    })),
    ...broken.map(({ rule, rows, key }): Finding => ({
      severity: "error",
      path: `${mapping.path}${rule.part}`,
      what: `${count(rows, "row")}: ${rule.what}`,
      rows,
      example: { key: exampleKey(input.plan.verify, driver.name, driver.key, key) },
      ...(rule.fix === undefined ? {} : { fix: ruleFix(input.compiled, rule.fix) }),
    })),
    ...here.rejections.map(({ reason, rows, key }): Finding => ({
      severity: "warning",
      path: `${mapping.path}.reject.${reason}`,
      what: `${count(rows, "row")} rejected, to wait in quarantine: ${reason}`,
      rows,
      example: { key: exampleKey(input.plan.verify, driver.name, driver.key, key) },
      fix: rowsTemplate(input.compiled, driver, { condition: conditionOf(part, reason) }),
    })),
  ];
  if (untried > 0) findings.push(notTried(mapping.path, untried));
  return {
    trial,
    findings,
    untried,
    leftOut: leftOut(
      trial,
      broken.map(({ rule }) => rule),
      failures,
    ),
  };
}

/** Rows made on the new side, as texts, to where they would be stored. */
async function carry(mapper: Lab, target: Lab, trial: Trial): Promise<Staged> {
  const columns = [
    ...trial.mapping.columns.map(({ name, targetBaseType }) => ({ name, type: targetBaseType })),
    ...keyTexts(trial.driver),
  ];
  const list = columns.map(({ name }) => ident(name)).join(", ");
  return mapper.readOnly(() =>
    target.stage(mapper.client, `select ${list} from ${trial.made}`, columns),
  );
}

function failureFinding(
  { plan, compiled }: ExamineInput,
  { driver, mapping }: { driver: Driver; mapping: Mapping },
  { part, error, keys }: Failure,
  untried: number,
): Finding {
  const least = untried > 0 ? "at least " : "";
  const key = keys[0] ?? [];
  return {
    severity: "error",
    path: `${mapping.path}${part}`,
    what: `${least}${count(keys.length, "row")} fail: ${exampleMessage(plan.verify, error)}`,
    rows: keys.length,
    example: {
      key: exampleKey(plan.verify, driver.name, driver.key, key),
      message: exampleMessage(plan.verify, error),
    },
    fix: rowsTemplate(compiled, driver, { key: plan.verify.redact.length > 0 ? undefined : key }),
  };
}

/** A reject's condition, where it can be asked of the table itself. */
function conditionOf(
  { reader, mapping }: { reader: Reader; mapping: Mapping },
  reason: string,
): string | undefined {
  if (reader.query !== undefined) return undefined;
  return mapping.rejects.find((reject) => reject.reason === reason)?.condition;
}

/** For rows that have to change: where to look, and what could be done. */
function rowsTemplate(
  compiled: CompiledDirection,
  driver: Driver,
  rows: { readonly key?: TextRow | undefined; readonly condition?: string | undefined },
): Fix {
  const table = relation(compiled.sourceSchema, driver.name);
  const columns = driver.key.map(({ name }) => ident(name)).join(", ");
  const values = rows.key?.map((value) => (value === null ? "null" : literal(value))).join(", ");
  const where = rows.condition ?? `(${columns}) = (${values ?? "…"})`;
  return {
    where: compiled.source,
    text: `select * from ${table} where ${where};
update ${table} set … where ${where};
delete from ${table} where ${where};`,
    destructive: true,
  };
}

function ruleFix(compiled: CompiledDirection, fix: NonNullable<RowRule["fix"]>): Fix {
  return fix.where === "plan"
    ? { where: "plan", text: fix.text, destructive: false }
    : { where: compiled.target, text: fix.text, destructive: true };
}

/** The keys that do not arrive, wherever their rows were lost. */
function leftOut(trial: Trial, broken: readonly RowRule[], failures: readonly Failure[]): string[] {
  const keys = keyTexts(trial.driver).map(({ name }) => name);
  const list = keys.join(", ");
  return [
    `select ${list} from ${trial.rejected}`,
    ...broken.map((rule) => `select ${list} from ${trial.made} where ${rule.broken}`),
    ...keyList(
      trial.driver,
      failures.flatMap((failure) => failure.keys),
    ),
  ];
}

/** Some keys as a query, or none. */
function keyList(driver: Driver, keys: readonly TextRow[]): string[] {
  if (keys.length === 0) return [];
  const names = keyTexts(driver).map(({ name }) => name);
  const values = keys.map((key) => `(${key.map(literalOrNull).join(", ")})`);
  return [`select * from (values ${values.join(", ")}) v(${names.join(", ")})`];
}

const literalOrNull = (value: string | null) =>
  value === null ? "null" : `${literal(value)}::text`;

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
