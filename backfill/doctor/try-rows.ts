import type { Plan } from "../../config/plan-types.ts";
import type { CompiledDirection, Driver, Mapping, Reader } from "../../store/postgres/mapping.ts";
import { ident, literal } from "../../store/postgres/quote.ts";
import type { TextRow } from "../../store/postgres/statement.ts";
import { keyTexts } from "../../store/postgres/sync-sql.ts";
import { count, exampleKey, exampleMessage, type Finding, notTried } from "./finding.ts";
import { conditionOf, rowsTemplate, ruleFix } from "./fixes.ts";
import type { Lab, Staged } from "./lab.ts";
import { strayRows } from "./own-rules.ts";
import { brokenRules, insertMade, type RowRule, rowRules } from "./row-rules.ts";
import type { Source } from "./source.ts";
import { type Failure, toldRejections, type Trial, tryMapping } from "./trial.ts";

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
  /** Asked to stop. */
  readonly signal: AbortSignal | undefined;
}

/** What became of a reader's rows in one mapping. */
export interface Tried {
  readonly trial: Trial;
  readonly findings: readonly Finding[];
  readonly leftOut: readonly string[];
  readonly untried: number;
}

/** Makes rows, asks them the target's rules, and inserts them where the target's constraints stand. */
export async function tryRows(
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
    ...toldRejections(here, input.plan.verify).map(({ reason, rows, key }): Finding => ({
      severity: "warning",
      path: `${mapping.path}${part.reader.transform === undefined ? `.reject.${reason}` : ".transform"}`,
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
export function keyList(driver: Driver, keys: readonly TextRow[]): string[] {
  if (keys.length === 0) return [];
  const names = keyTexts(driver).map(({ name }) => name);
  const values = keys.map((key) => `(${key.map(literalOrNull).join(", ")})`);
  return [`select * from (values ${values.join(", ")}) v(${names.join(", ")})`];
}

const literalOrNull = (value: string | null) =>
  value === null ? "null" : `${literal(value)}::text`;
