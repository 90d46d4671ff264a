import type { Table } from "../../store/postgres/catalog.ts";
import { ident, relation } from "../../store/postgres/quote.ts";
import { run } from "../../store/postgres/statement.ts";
import type { Lab } from "./lab.ts";

/**
 * A temporary table with the columns, constraints, unique indexes and generated columns of a target table. Foreign keys and
 * triggers are left out, as a sync leaves them out. Defaults that draw from a sequence are too: drawing would be a write.
 */
export async function createStandIn(lab: Lab, table: Table, name: string): Promise<string> {
  const from = relation(table.schema, table.name);
  const standIn = `pg_temp.${ident(name)}`;
  const drawn = await run(
    lab.client,
    `select a.attname from pg_attribute a
     left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
     where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped
       and (a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) ~ 'nextval')`,
    [from],
  );
  await lab.define(
    `create temporary table ${ident(name)} (like ${from}
     including constraints including indexes including defaults including generated)`,
    ...drawn
      .filter(([column]) => !table.key.includes(column ?? ""))
      .map(
        ([column]) =>
          `alter table ${standIn} alter column ${ident(column ?? "")} drop default, alter column ${ident(column ?? "")} drop not null`,
      ),
  );
  return standIn;
}
