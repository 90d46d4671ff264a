import type { VerifyPlan } from "../../config/plan-types.ts";
import type { ForeignKey, Table } from "../../store/postgres/catalog.ts";
import type { CompiledDirection } from "../../store/postgres/mapping.ts";
import { ident, relation } from "../../store/postgres/quote.ts";
import { run } from "../../store/postgres/statement.ts";
import { messageOf } from "../../config/errors.ts";
import { count, type Example, exampleKey, type Finding, shortList } from "./finding.ts";
import type { Lab } from "./lab.ts";
import type { Trial } from "./trial.ts";

/** What the mappings of one target table made, together. */
export interface Made {
  readonly target: Table;
  readonly trials: readonly Trial[];
  /** Every row of every table they read was looked at. */
  readonly complete: boolean;
}

export interface TargetContext {
  readonly lab: Lab;
  readonly compiled: CompiledDirection;
  readonly verify: VerifyPlan;
  readonly made: ReadonlyMap<string, Made>;
  /** Tables some of whose mappings could not be tried. */
  readonly open: ReadonlySet<string>;
}

/** Rules of a target table that several rows break together: keys, unique indexes, shared rows, foreign keys. */
export async function targetFindings(context: TargetContext, made: Made): Promise<Finding[]> {
  const guarded = async (path: string, work: () => Promise<Finding[]>): Promise<Finding[]> => {
    try {
      return await context.lab.readOnly(work);
    } catch (error) {
      if ((error as { code?: string }).code === undefined) throw error;
      return [{ severity: "unknown", path, what: `could not be asked: ${messageOf(error)}` }];
    }
  };
  const found: Finding[] = [];
  const path = pathOf(made);
  found.push(...(await guarded(path, () => keyCollisions(context, made))));
  found.push(...(await guarded(path, () => sharedRows(context, made))));
  for (const index of await uniqueIndexes(context.lab, made.target))
    found.push(...(await guarded(path, () => uniqueViolations(context, made, index))));
  for (const key of made.target.foreignKeys)
    found.push(...(await guarded(path, () => brokenReferences(context, made, key))));
  return found;
}

const pathOf = ({ trials }: Made) =>
  [...new Set(trials.map(({ mapping }) => mapping.path))].join(", ");

/** The columns that every one of these mappings makes. */
function commonColumns(trials: readonly Trial[]): string[] {
  const [first, ...rest] = trials.map(({ mapping }) => mapping.columns.map(({ name }) => name));
  return (first ?? []).filter((name) => rest.every((names) => names.includes(name)));
}

/** Made rows with the source row they come from, as one text. */
function union(trials: readonly Trial[]): string {
  const names = commonColumns(trials).map(ident);
  return trials
    .map(
      ({ made, driver }) =>
        `select ${[...names, `${sourceText(driver)} as cf_source`].join(", ")} from ${made}`,
    )
    .join(" union all ");
}

const sourceText = (driver: Trial["driver"]) =>
  `json_build_object(${driver.key.map((_, i) => `${i}, cf_k${i}`).join(", ")})::text || ' ' || ${driver.number}`;

function exampleOf(
  context: TargetContext,
  made: Made,
  source: string | null,
  other?: string | null,
): Example {
  const [first, second] = [source, other].map((text) => {
    const at = text?.lastIndexOf(" ") ?? -1;
    if (text === null || text === undefined || at < 0) return undefined;
    const driver = made.trials.find(
      (trial) => trial.driver.number === Number(text.slice(at + 1)),
    )?.driver;
    const values = JSON.parse(text.slice(0, at)) as Record<string, string>;
    return driver === undefined ? undefined : { driver, values };
  });
  if (first === undefined) return { key: {} };
  const keyOf = ({ driver, values }: typeof first) =>
    exampleKey(context.verify, driver.name, driver.key, Object.values(values));
  if (second === undefined || other === source) return { key: keyOf(first) };
  const words = Object.entries(keyOf(second)).map(([name, value]) => `${name} = ${value}`);
  return {
    key: keyOf(first),
    message: `and the row of ${second.driver.name} with ${words.join(", ")}`,
  };
}

async function keyCollisions(context: TargetContext, made: Made): Promise<Finding[]> {
  const trials = made.trials.filter(({ mapping }) => mapping.own.kind !== "none");
  const [first] = trials;
  if (first === undefined) return [];
  const { key } = first.mapping;
  const list = key.map(ident).join(", ");
  const present = key.map((name) => `${ident(name)} is not null`).join(" and ");
  const [row] = await context.lab.select(
    `select count(*)::text, sum(n)::text, (array_agg(a order by a))[1], (array_agg(b order by a))[1]
     from (select count(*) as n, min(cf_source) as a, max(cf_source) as b from (${union(trials)}) u where ${present} group by ${list} having count(*) > 1) g`,
  );
  const [groups, rows, a, b] = row ?? [];
  if (Number(groups) === 0) return [];
  return [
    {
      severity: "error",
      path: pathOf({ ...made, trials }),
      what: `${count(Number(rows), "row")} made fall on ${count(Number(groups), "row")} of ${made.target.name}: they have the same key (${key.join(", ")})`,
      rows: Number(rows),
      example: exampleOf(context, made, a ?? null, b),
      fix: {
        where: "plan",
        text: `make ${shortList(key)} differ between them; or \`own: none\` if the rows are meant to be shared`,
        destructive: false,
      },
    },
  ];
}

/** Columns of a shared row must follow from its key: whoever comes first decides otherwise. */
async function sharedRows(context: TargetContext, made: Made): Promise<Finding[]> {
  const trials = made.trials.filter(({ mapping }) => mapping.own.kind === "none");
  const [first] = trials;
  if (first === undefined) return [];
  const { key } = first.mapping;
  const others = commonColumns(trials).filter((name) => !key.includes(name));
  if (others.length === 0) return [];
  const differing = others.map(
    (name) =>
      `case when count(distinct ${ident(name)}::text) + max((${ident(name)} is null)::int) > 1 then '${name.replaceAll("'", "''")}' end`,
  );
  const [row] = await context.lab.select(
    `select count(*)::text, sum(n)::text, (array_agg(a order by a))[1], (array_agg(b order by a))[1], (array_agg(c order by a))[1]
     from (select count(*) as n, min(cf_source) as a, max(cf_source) as b, concat_ws(', ', ${differing.join(", ")}) as c
           from (${union(trials)}) u group by ${key.map(ident).join(", ")}) g where c <> ''`,
  );
  const [groups, rows, a, b, columns] = row ?? [];
  if (Number(groups) === 0) return [];
  return [
    {
      severity: "error",
      path: pathOf({ ...made, trials }),
      what: `${count(Number(groups), "shared row")} of ${made.target.name} would differ by which source row comes first (${columns}): with \`own: none\`, every column must follow from the key (${key.join(", ")})`,
      rows: Number(rows),
      example: exampleOf(context, made, a ?? null, b),
      fix: {
        where: "plan",
        text: `put ${columns} into what the key (${key.join(", ")}) is made from, or make it the same for all`,
        destructive: false,
      },
    },
  ];
}

interface UniqueIndex {
  readonly name: string;
  readonly items: readonly string[];
  readonly columns: readonly string[];
  readonly where: string | null;
  readonly nullsEqual: boolean;
}

async function uniqueIndexes(lab: Lab, table: Table): Promise<UniqueIndex[]> {
  const rows = await run(
    lab.client,
    `select json_build_object('name', c.relname,
       'items', (select json_agg(pg_get_indexdef(i.indexrelid, k, true) order by k) from generate_series(1, i.indnkeyatts) k),
       'columns', (select coalesce(json_agg(a.attname), '[]') from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])),
       'where', pg_get_expr(i.indpred, i.indrelid),
       'nullsEqual', coalesce((to_jsonb(i)->>'indnullsnotdistinct')::bool, false))::text
     from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = $1::text::regclass and i.indisunique and i.indisvalid order by c.relname`,
    [relation(table.schema, table.name)],
  );
  return rows
    .map(([json]) => JSON.parse(json ?? "") as UniqueIndex)
    .filter(
      ({ columns, items, where }) =>
        where !== null ||
        items.length !== table.key.length ||
        columns.toSorted().join() !== table.key.toSorted().join(),
    );
}

async function uniqueViolations(
  context: TargetContext,
  made: Made,
  index: UniqueIndex,
): Promise<Finding[]> {
  const common = commonColumns(made.trials);
  // A column that no mapping makes has its default: usually a number of its own.
  if (index.columns.some((name) => !common.includes(name))) return [];
  const { trials } = made;
  const items = index.items.map((item, i) => `${item} as cf_u${i}`).join(", ");
  const names = index.items.map((_, i) => `cf_u${i}`);
  const present = index.nullsEqual
    ? "true"
    : names.map((name) => `${name} is not null`).join(" and ");
  const [first] = trials;
  const key = `row(${(first?.mapping.key ?? []).map(ident).join(", ")})::text`;
  const [row] = await context.lab.select(
    `select count(*)::text, sum(n)::text, (array_agg(a order by a))[1], (array_agg(b order by a))[1]
     from (select count(*) as n, min(cf_source) as a, max(cf_source) as b from (
       select ${items}, cf_source, ${key} as cf_target from (${union(trials)}) u${index.where === null ? "" : ` where ${index.where}`}) v
       where ${present} group by ${names.join(", ")} having count(distinct cf_target) > 1) g`,
  );
  const [groups, rows, a, b] = row ?? [];
  if (Number(groups) === 0) return [];
  return [
    {
      severity: "error",
      path: pathOf(made),
      what: `${count(Number(rows), "row")} made break the unique index ${index.name} (${index.items.join(", ")}) of ${made.target.name}: ${count(Number(groups), "value")} stand in more than one`,
      rows: Number(rows),
      example: exampleOf(context, made, a ?? null, b),
      fix: {
        where: context.compiled.source,
        text: `select ${shortList(index.items)}, count(*) from … group by ${index.items.map((_, i) => i + 1).join(", ")} having count(*) > 1; -- then update or delete the duplicates`,
        destructive: true,
      },
    },
  ];
}

async function brokenReferences(
  context: TargetContext,
  made: Made,
  key: ForeignKey,
): Promise<Finding[]> {
  const { lab, compiled } = context;
  const path = pathOf(made);
  const name = `the foreign key ${key.name} (${key.columns.join(", ")}) to ${key.referencedTable}`;
  const common = commonColumns(made.trials);
  if (key.columns.some((column) => !common.includes(column))) return [];
  if (key.referencedSchema === compiled.targetSchema && context.open.has(key.referencedTable))
    return [
      {
        severity: "unknown",
        path,
        what: `${name} is not proven: the rows of ${key.referencedTable} could not be made`,
      },
    ];
  const parent =
    key.referencedSchema === compiled.targetSchema
      ? context.made.get(key.referencedTable)
      : undefined;
  const parentColumns = parent === undefined ? [] : commonColumns(parent.trials);
  if (
    parent !== undefined &&
    key.referencedColumns.some((column) => !parentColumns.includes(column))
  )
    return [
      {
        severity: "unknown",
        path,
        what: `${name} is not proven: no mapping makes ${key.referencedColumns.join(", ")}`,
      },
    ];
  const parents =
    parent === undefined
      ? `(select * from ${relation(key.referencedSchema, key.referencedTable)})`
      : `(${union(parent.trials)})`;
  const matches = key.columns
    .map((column, i) => `cf_p.${ident(key.referencedColumns[i] ?? "")} = cf_c.${ident(column)}`)
    .join(" and ");
  const present = key.columns.map((column) => `cf_c.${ident(column)} is not null`).join(" and ");
  const [row] = await lab.select(
    `select count(*)::text, min(cf_source) from (${union(made.trials)}) cf_c where ${present} and not exists (select from ${parents} cf_p where ${matches})`,
  );
  const [n, source] = row ?? [];
  if (Number(n) === 0) return [];
  if (parent?.complete === false)
    return [
      {
        severity: "unknown",
        path,
        what: `${name} is not proven: the rows of ${key.referencedTable} were sampled, and ${count(Number(n), "row")} looked at refer to others. --all-rows proves it`,
        rows: Number(n),
      },
    ];
  return [
    {
      severity: "error",
      path,
      what: `${count(Number(n), "row")} made break ${name}: no such row is made`,
      rows: Number(n),
      example: exampleOf(context, made, source ?? null),
      fix: {
        where: "plan",
        text: `where or reject: leave out rows whose ${shortList(key.columns)} refers to nothing; or map the missing rows of ${key.referencedTable}`,
        destructive: false,
      },
    },
  ];
}
