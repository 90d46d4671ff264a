import type { CompiledDirection, Driver, Mapping, Reader } from "../../store/postgres/mapping.ts";
import { ident, literal, relation } from "../../store/postgres/quote.ts";
import type { TextRow } from "../../store/postgres/statement.ts";
import type { Fix } from "./finding.ts";
import type { RuleFix } from "./row-rules.ts";

/** A reject's condition, where it can be asked of the table itself. */
export function conditionOf(
  { reader, mapping }: { reader: Reader; mapping: Mapping },
  reason: string,
): string | undefined {
  if (reader.query !== undefined) return undefined;
  return mapping.rejects.find((reject) => reject.reason === reason)?.condition;
}

/** For rows that have to change: where to look, and what could be done. */
export function rowsTemplate(
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

/** A rule's fix, on the side that it belongs to. */
export function ruleFix(compiled: CompiledDirection, fix: RuleFix): Fix {
  return fix.where === "plan"
    ? { where: "plan", text: fix.text, destructive: false }
    : { where: compiled.target, text: fix.text, destructive: true };
}
