import pg from "pg";

/** A piece of SQL that is safe to splice: made by `ident`, `relation` or `literal` only. */
export function ident(name: string): string {
  return pg.escapeIdentifier(name);
}

/** A schema-qualified name, quoted. */
export function relation(schema: string, name: string): string {
  return `${ident(schema)}.${ident(name)}`;
}

/** A string constant, for the places where Postgres takes no parameter (DDL, SET). */
export function literal(value: string): string {
  return pg.escapeLiteral(value);
}
