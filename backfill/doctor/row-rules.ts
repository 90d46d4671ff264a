import { columnOf } from "../../store/postgres/catalog.ts";
import type { MappedColumn } from "../../store/postgres/mapping.ts";
import { ident, literal, relation } from "../../store/postgres/quote.ts";
import { messageOf } from "../../config/errors.ts";
import { run, type TextRow } from "../../store/postgres/statement.ts";
import { isRefusal } from "../../store/postgres/sync-keys.ts";
import type { Lab } from "./lab.ts";
import { columnsPart, FailingRows, type Failure, halve, type Trial } from "./trial.ts";

/** A rule of the target that one row alone breaks. */
export interface RowRule {
  /** Beside the mapping's path. */
  readonly part: string;
  readonly what: string;
  /** SQL over a made row, true where the rule is broken. */
  readonly broken: string;
  readonly fix: RuleFix | undefined;
}

/** What would put it right: lines for the plan, or SQL for the target. */
export interface RuleFix {
  readonly where: "plan" | "target";
  readonly text: string;
}

export interface Broken {
  readonly rule: RowRule;
  readonly rows: number;
  readonly key: TextRow;
}

/** The rules of the target table that can be asked of all rows at once, and so be counted. */
export async function rowRules(lab: Lab, { mapping, reader }: Trial): Promise<RowRule[]> {
  const rules = mapping.columns.flatMap((column) => {
    const target = columnOf(mapping.target, column.name);
    return [
      ...(target?.notNull === true ? [notNull(column)] : []),
      ...sized(mapping.target.schema, mapping.target.name, column),
    ];
  });
  const all = [...rules, ...(await checks(lab, mapping.target, mapping.columns))];
  const { transform } = reader;
  if (transform === undefined) return all;
  const text = `in ${transform.file}: make other rows, or return { reject: "a reason" }`;
  return all.map((rule) => ({
    ...rule,
    part: rule.part.replace(/^\.set/, columnsPart(reader)),
    fix: { where: "plan", text },
  }));
}

function notNull({ name, expression }: MappedColumn): RowRule {
  return {
    part: `.set.${name}`,
    what: `${name} must have a value, and gets none`,
    broken: `${ident(name)} is null`,
    fix: {
      where: "plan",
      text: `set: { ${name}: coalesce(${expression}, …) }  # or reject: { no ${name}: (${expression}) is null }`,
    },
  };
}

function sized(schema: string, table: string, column: MappedColumn): RowRule[] {
  const { name, expression, castType, targetType } = column;
  if (castType === undefined) return [];
  const characters = /^(?:character|character varying|varchar|bpchar)\((\d+)\)$/.exec(targetType);
  if (characters !== null) {
    const most = Number(characters[1]);
    return [
      {
        part: `.set.${name}`,
        what: `${name} is ${targetType}, and gets more than ${most} characters`,
        // Blanks at the end are cut off without an error.
        broken: `char_length(rtrim(${ident(name)}::text, ' ')) > ${most}`,
        fix: {
          where: "target",
          text: `alter table ${relation(schema, table)} alter column ${ident(name)} type text; -- or in the plan: reject: { ${name} too long: char_length(${expression}) > ${most} }`,
        },
      },
    ];
  }
  const digits = /^numeric\((\d+),(-?\d+)\)$/.exec(targetType);
  if (digits === null) return [];
  const [precision, scale] = [Number(digits[1]), Number(digits[2])];
  return [
    {
      part: `.set.${name}`,
      what: `${name} is ${targetType}, and gets a number that is too large`,
      broken: `${ident(name)}::numeric <> 'NaN' and abs(round(${ident(name)}::numeric, ${scale})) >= 10::numeric ^ ${precision - scale}`,
      fix: {
        where: "target",
        text: `alter table ${relation(schema, table)} alter column ${ident(name)} type numeric; -- or a wider one`,
      },
    },
  ];
}

/** Check constraints over the columns that the mapping makes; the others have their defaults. */
async function checks(
  lab: Lab,
  target: Trial["mapping"]["target"],
  columns: readonly MappedColumn[],
): Promise<RowRule[]> {
  const made = columns.map(({ name }) => name);
  const rows = await run(
    lab.client,
    `select c.conname, pg_get_expr(c.conbin, c.conrelid)
     from pg_constraint c where c.conrelid = $1::text::regclass and c.contype = 'c' and not exists (
       select from unnest(c.conkey) k(n) join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.n
       where not a.attname = any($2::text[])) order by 1`,
    [relation(target.schema, target.name), made],
  );
  return rows.map(([name, expression]) => ({
    part: "",
    what: `the check constraint ${name} does not hold: ${expression}`,
    broken: `(${expression}) is false`,
    fix: {
      where: "plan",
      text: `reject: { ${literal(`breaks ${name ?? ""}`)}: not (${expression}) }  # said over the source's columns`,
    },
  }));
}

/** Counts the made rows that break each rule. A rule that cannot be asked at once is left to the insert that follows. */
export async function brokenRules(
  lab: Lab,
  trial: Trial,
  rules: readonly RowRule[],
): Promise<{ asked: RowRule[]; broken: Broken[] }> {
  const asked: RowRule[] = [];
  const broken: Broken[] = [];
  const keys = trial.driver.key.map((_, i) => `cf_k${i}`).join(", ");
  for (const rule of rules) {
    try {
      const [row] = await lab.readOnly(() =>
        lab.select(
          `select c.n::text, ${keys} from (select count(*) as n, min(cf_n) as first from ${trial.made} where ${rule.broken}) c
           left join ${trial.made} m on m.cf_n = c.first`,
        ),
      );
      asked.push(rule);
      const [n, ...key] = row ?? [];
      if (Number(n) > 0) broken.push({ rule, rows: Number(n), key });
    } catch (error) {
      if (!isRefusal(error) && !messageOf(error).includes("does not exist")) throw error;
    }
  }
  return { asked, broken };
}

/**
 * Inserts the rows that break no rule into the stand-in of their target, which has its constraints and unique indexes:
 * what is still refused, the rules did not know of. Rows whose key is taken are skipped here; collisions are counted apart.
 */
export async function insertMade(
  lab: Lab,
  trial: Trial,
  standIn: string,
  rules: readonly RowRule[],
): Promise<{ failures: Failure[]; untried: number }> {
  const { mapping, made, driver } = trial;
  const names = mapping.columns.map(({ name }) => ident(name)).join(", ");
  const sound = rules.map(({ broken }) => ` and (${broken}) is not true`).join("");
  const [last] = await lab.select(`select coalesce(max(cf_n), 0)::text from ${made}`);
  const failed = new FailingRows();
  const untried = await halve(lab, made, Number(last?.[0]), {
    attempt: async ({ from, to }) => {
      await run(
        lab.client,
        `insert into ${standIn} (${names}) overriding system value select ${names} from ${made}
         where cf_n between ${from} and ${to}${sound} on conflict do nothing`,
      );
    },
    failed: async (row, error) => {
      const keys = driver.key.map((_, i) => `cf_k${i}`).join(", ");
      const [key] = await lab.select(`select ${keys} from ${made} where cf_n = ${row}`);
      failed.add({ part: "", error, keys: [key ?? []] });
    },
  });
  return { failures: failed.all(), untried };
}
