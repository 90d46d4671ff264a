import type { CompiledDirection } from "../../store/postgres/mapping.ts";
import type { Examination } from "./examine.ts";
import type { Lab } from "./lab.ts";

export interface Estimates {
  /** Old rows that the copy reads. */
  readonly rows: number;
  /** Rows that it makes, from what the rows looked at made. */
  readonly target_rows: number;
  /** Tables and indexes of the new side. */
  readonly target_bytes: number;
  readonly wal_bytes: number;
  readonly seconds: number;
  /** What the numbers rest on. */
  readonly assumes: string;
}

/** Rows and index entries are logged once, pages in part once more after each checkpoint. */
const WAL_FACTOR = 1.5;

/** Sizes of the stand-ins, which have the targets' indexes, brought up to all rows. */
export async function estimate(
  lab: Lab,
  compiled: CompiledDirection,
  examined: Examination,
  workers: number,
): Promise<Estimates> {
  let rows = 0;
  let ms = 0;
  for (const driver of compiled.drivers) {
    const sample = examined.drivers.get(driver.name)?.sample;
    const tried = Math.max(0, ...covered(examined, driver.name));
    if (sample === undefined || tried === 0) continue;
    rows += sample.total;
    ms += (examined.spentMs.get(driver.name) ?? 0) * (sample.total / tried);
  }
  let made = 0;
  let bytes = 0;
  for (const [target, standIn] of examined.standIns) {
    const factor = factorOf(examined, target);
    const [row] = await lab.select(
      `select (select count(*) from ${standIn})::text, pg_total_relation_size('${standIn.replaceAll("'", "''")}')::text`,
    );
    made += Number(row?.[0]) * factor;
    bytes += Number(row?.[1]) * factor;
  }
  return {
    rows: Math.round(rows),
    target_rows: Math.round(made),
    target_bytes: Math.round(bytes),
    wal_bytes: Math.round(bytes * WAL_FACTOR),
    seconds: Math.ceil(ms / 1000 / Math.max(1, workers)),
    assumes: `${workers} ${workers === 1 ? "worker" : "workers"} as fast as this check was, no throttle, no other load; ${WAL_FACTOR} bytes of WAL for each byte stored`,
  };
}

function covered(examined: Examination, table: string): number[] {
  return examined.coverage.filter((entry) => entry.table === table).map(({ tried }) => tried);
}

/** How many rows stand behind each one that was looked at. */
function factorOf(examined: Examination, target: string): number {
  const tables = examined.trials
    .filter(({ mapping }) => mapping.target.name === target)
    .map(({ driver }) => driver.name);
  const of = (pick: "rows" | "tried") =>
    [...new Set(tables)].reduce((sum, table) => {
      const entries = examined.coverage.filter((entry) => entry.table === table);
      return sum + Math.max(0, ...entries.map((entry) => entry[pick]));
    }, 0);
  const tried = of("tried");
  return tried === 0 ? 0 : of("rows") / tried;
}
