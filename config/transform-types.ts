/**
 * What a module that the plan names as `transform` exports, for users: `import type { Transform } from "crossfade"`. Types
 * only: the package ships this file as its declarations.
 */

/** A value as Postgres writes it: `12.50`, `t`, `{a,b}`, `2024-05-01 10:00:00+00`. null: SQL NULL. */
export type Value = string | null;

/** The row goes to quarantine with this reason; what stands on the other side of it stays as it is. */
export interface Rejection {
  readonly reject: string;
}

/**
 * Makes the rows of the target table from one row of the source, or says why it cannot. The same row must always give the
 * same answer: nothing but the row may be looked at, no clock, no random number, nothing that was remembered. None is a
 * fine answer: what the source row made before is removed.
 *
 * `Source` and `Target` are names of columns. A row names each column that it makes; those that `own` of the plan gives
 * are filled in.
 */
export type Transform<Source extends string = string, Target extends string = string> = (
  row: Readonly<Record<Source, Value>>,
) => readonly Readonly<Record<Target, Value>>[] | Rejection;
