import type { CompiledDirection } from "../../store/postgres/mapping.ts";
import { ident, relation } from "../../store/postgres/quote.ts";
import { listSequences } from "../../store/postgres/sequences.ts";
import type { Finding } from "./finding.ts";
import type { Lab } from "./lab.ts";
import type { Made } from "./target-rules.ts";

/** Fewer numbers than a flip leaves as head-room. */
const FEW_NUMBERS = 1_000n;

/**
 * Before a flip the sequences of the other side are raised beyond every number in use. One that ends before, or soon
 * after, leaves the app without numbers.
 */
export async function sequenceFindings(
  lab: Lab,
  compiled: CompiledDirection,
  made: ReadonlyMap<string, Made>,
): Promise<Finding[]> {
  const tables = [...made.keys()].map((name) => ({ schema: compiled.targetSchema, name }));
  const found: Finding[] = [];
  for (const sequence of await listSequences(lab.client, tables)) {
    if (sequence.increment < 0n) continue;
    for (const { name: table, column, numeric } of sequence.columns) {
      const trials = (made.get(table)?.trials ?? []).filter(({ mapping }) =>
        mapping.columns.some(({ name }) => name === column),
      );
      if (!numeric || trials.length === 0) continue;
      const values = trials.map((trial) => `select max(${ident(column)}) as n from ${trial.made}`);
      const [row] = await lab.select(
        `select trunc(max(n))::text from (${values.join(" union all ")}) m where n < 'Infinity'::float8`,
      );
      const highest = row?.[0];
      if (highest === null || highest === undefined) continue;
      if (sequence.max - BigInt(highest) >= FEW_NUMBERS) continue;
      const name = relation(sequence.schema, sequence.name);
      found.push({
        severity: "warning",
        path: `${compiled.target}.${table}.${column}`,
        what: `its sequence ${sequence.name} ends at ${sequence.max}, and rows carry numbers up to ${highest}: after the flip the app would run out of them`,
        fix: {
          where: compiled.target,
          text: `alter sequence ${name} as bigint no maxvalue; -- and the column, if it is smaller`,
          destructive: true,
        },
      });
    }
  }
  return found;
}
