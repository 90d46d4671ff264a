import type { VerifyPlan } from "../../config/plan-types.ts";
import { castExpression } from "../../store/postgres/compile-checks.ts";
import {
  type Driver,
  type Mapping,
  type Reader,
  type ReaderColumn,
  aliasOf,
} from "../../store/postgres/mapping.ts";
import { ident } from "../../store/postgres/quote.ts";
import { run, type TextRow } from "../../store/postgres/statement.ts";
import { isRefusal } from "../../store/postgres/sync-keys.ts";
import { keyTexts, mappedSelect, rejectedSelect } from "../../store/postgres/sync-sql.ts";
import { shortList } from "./finding.ts";
import type { Lab, Staged } from "./lab.ts";
import { transformStaged } from "./transform-trial.ts";

/** Tries before a mapping's failing rows are no longer looked for one by one. */
const MOST_TRIES = 300;

/** Rows that fail with the same error in the same part of a mapping. */
export interface Failure {
  /** `.set.COLUMN`, `.where`, … beside the mapping's path; empty if no single part fails. */
  readonly part: string;
  readonly error: unknown;
  /** The source keys, as texts. */
  readonly keys: readonly TextRow[];
}

export interface Rejection {
  readonly reason: string;
  readonly rows: number;
  readonly key: TextRow;
}

/** What a mapping made of staged rows. */
export interface Trial {
  readonly mapping: Mapping;
  readonly driver: Driver;
  readonly reader: Reader;
  /** The rows made, with `cf_k0…` as texts, numbered in `cf_n`. */
  readonly made: string;
  /** Keys of rejected rows, `cf_k0…` and `cf_reason`. */
  readonly rejected: string;
  readonly failures: readonly Failure[];
  readonly rejections: readonly Rejection[];
  /** Staged rows that were not tried, because too many failed before. */
  readonly untried: number;
}

/** Runs a mapping over staged rows; ranges that fail are halved until the failing rows stand alone. */
export async function tryMapping(
  lab: Lab,
  { driver, reader, mapping }: { driver: Driver; reader: Reader; mapping: Mapping },
  staged: Staged,
): Promise<Trial> {
  const keys = keyTexts(driver);
  const columns = mapping.columns.map(({ name, castType }) => ({
    name,
    type: castType ?? "text",
  }));
  const made = await lab.empty([...columns, ...keys]);
  const rejected = await lab.empty([...keys, { name: "cf_reason", type: "text" }]);
  const failed = new FailingRows();
  const { transform } = reader;
  let read = { table: staged.table, columns: reader.columns };
  if (transform !== undefined) {
    const { table, failures } = await transformStaged(
      lab,
      { driver, reader, transform },
      staged,
      rejected,
    );
    for (const { key, error } of failures) failed.add({ part: ".transform", error, keys: [key] });
    read = { table, columns: transform.columns };
  }
  const part = { driver, reader, mapping, read };
  const untried = await halve(lab, read.table, staged.last, {
    attempt: async (range) => {
      const raw = rawRows(part, range);
      const names = [...columns, ...keys].map(({ name }) => ident(name)).join(", ");
      await run(
        lab.client,
        `insert into ${made} (${names}) ${mappedSelect(driver, mapping, raw, { withKeys: true })}`,
      );
      const rejects = rejectedSelect(driver, mapping, raw);
      if (rejects === undefined) return;
      const list = [...keys.map(({ name }) => name), "cf_reason"].join(", ");
      await run(lab.client, `insert into ${rejected} (${list}) ${rejects}`);
    },
    failed: async (row, error) => failed.add(await explain(lab, part, failed, { row, error })),
  });
  await lab.readOnly(() => run(lab.client, `analyze ${made}`));
  return {
    mapping,
    driver,
    reader,
    made,
    rejected,
    failures: failed.all(),
    rejections: await rejections(lab, rejected, keys.length),
    untried,
  };
}

/** Rows `from` to `to`, both included, by `cf_n`. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

export interface Halving {
  /** Runs in a read-only transaction of its own. */
  attempt(range: Range): Promise<void>;
  failed(row: number, error: unknown): Promise<void>;
}

/** Tries rows 1 to `rows` of `table`; returns how many were left untried when the tries were used up. */
export async function halve(
  lab: Lab,
  table: string,
  rows: number,
  halving: Halving,
): Promise<number> {
  let tries = 0;
  let untried = 0;
  const open: Range[] = rows === 0 ? [] : [{ from: 1, to: rows }];
  for (let range = open.pop(); range !== undefined; range = open.pop()) {
    if (tries >= MOST_TRIES) {
      untried += range.to - range.from + 1;
      continue;
    }
    tries += 1;
    const current = range;
    try {
      await lab.readOnly(() => halving.attempt(current));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (range.from === range.to) {
        await halving.failed(range.from, error);
        continue;
      }
      await lab.indexRows(table);
      const middle = (range.from + range.to) >> 1;
      open.push({ from: middle + 1, to: range.to }, { from: range.from, to: middle });
    }
  }
  return untried;
}

interface Part {
  readonly driver: Driver;
  readonly reader: Reader;
  readonly mapping: Mapping;
  /** What expressions run over, by the numbers of the source rows. */
  readonly read: { readonly table: string; readonly columns: readonly ReaderColumn[] };
}

function rawRows({ read }: Part, { from, to }: Range): string {
  const names = read.columns.map(({ name }) => ident(name)).join(", ");
  return `(select ${names} from ${read.table} where cf_n between ${from} and ${to})`;
}

/** Where the plan says what columns get. */
export const columnsPart = (reader: Reader) =>
  reader.transform === undefined ? ".set" : ".transform";

/** Which part of the mapping fails on one row: each is run alone. */
async function explain(
  lab: Lab,
  part: Part,
  before: FailingRows,
  { row, error }: { readonly row: number; readonly error: unknown },
): Promise<Failure> {
  const { driver, mapping } = part;
  const raw = `${rawRows(part, { from: row, to: row })} as ${aliasOf(driver)}`;
  const keys = driver.key.map(({ name }) => `${aliasOf(driver)}.${ident(name)}::text`).join(", ");
  const [key] = await lab.select(`select ${keys} from ${raw}`);
  const parts: [string, string][] = [
    ...(mapping.where === undefined
      ? []
      : [[".where", `(${mapping.where}\n)`] satisfies [string, string]]),
    ...mapping.rejects.map(({ reason, condition }): [string, string] => [
      `.reject.${reason}`,
      `(${condition}\n)`,
    ]),
    ...mapping.columns.map((column): [string, string] => [
      `${columnsPart(part.reader)}.${column.name}`,
      castExpression(column),
    ]),
  ];
  // What failed before probably fails again.
  const likely = parts.toSorted(([a], [b]) => Number(before.has(b)) - Number(before.has(a)));
  for (const [name, expression] of likely) {
    try {
      await lab.readOnly(() =>
        run(lab.client, `select (${expression})::text, ${expression} from ${raw}`),
      );
    } catch (cause) {
      if (isRefusal(cause)) return { part: name, error: cause, keys: [key ?? []] };
    }
  }
  return { part: "", error, keys: [key ?? []] };
}

/** Failures grouped by what fails and how. */
export class FailingRows {
  readonly #found = new Map<string, Failure>();

  add(failure: Failure): void {
    const state = (failure.error as { code?: string }).code ?? "";
    const name = `${failure.part} ${state}`;
    const known = this.#found.get(name);
    this.#found.set(
      name,
      known === undefined ? failure : { ...known, keys: [...known.keys, ...failure.keys] },
    );
  }

  /** Whether this part failed before. */
  has(part: string): boolean {
    return this.all().some((failure) => failure.part === part);
  }

  all(): Failure[] {
    return [...this.#found.values()];
  }
}

/** A trial's rejections to be told: the reasons a module gives may hold values, and be as many as the rows. */
export function toldRejections({ reader, rejections: all }: Trial, plan: VerifyPlan): Rejection[] {
  const [first] = all;
  if (reader.transform === undefined || first === undefined) return [...all];
  const reason = plan.redact.length > 0 ? "(redacted)" : shortList(all.map((one) => one.reason));
  return [{ reason, rows: all.reduce((sum, one) => sum + one.rows, 0), key: first.key }];
}

async function rejections(lab: Lab, rejected: string, width: number): Promise<Rejection[]> {
  const keys = Array.from({ length: width }, (_, i) => `cf_k${i}`).join(", ");
  const rows = await lab.select(
    `select c.n::text, e.* from (select cf_reason, count(*) as n, min(cf_n) as first from ${rejected} group by 1) c
     join (select cf_n, cf_reason, ${keys} from ${rejected}) e on e.cf_n = c.first order by c.n desc`,
  );
  return rows.map(([n, , reason, ...key]) => ({ reason: reason ?? "", rows: Number(n), key }));
}
