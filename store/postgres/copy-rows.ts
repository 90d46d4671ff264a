import { finished } from "node:stream/promises";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import type { CopyStreamQuery, CopyToStreamQuery } from "pg-copy-streams";
import { type CopyPace, Stretch } from "./stretch.ts";
import type { SyncContext } from "./sync.ts";

export interface CopyRows {
  /** What is read of the source. */
  readonly select: string;
  /** Where it goes on the target: a relation, with its columns where it has more. */
  readonly into: string;
  readonly binary: boolean;
  /** Undefined: as fast as it goes. */
  readonly pace?: CopyPace | undefined;
}

export interface Copied {
  readonly rows: number;
  readonly bytes: number;
  /** What was rested of the time it took. */
  readonly restedMs: number;
}

/**
 * Brings the result of a query on the source into a table of the target, by COPY through this process as bytes. Where the target
 * refuses a row, both sessions can be used again when the error comes.
 */
export async function copyRows(
  { source, target }: Pick<SyncContext, "source" | "target">,
  { select, into, binary, pace }: CopyRows,
): Promise<Copied> {
  const format = binary ? " (format binary)" : "";
  const rows = source.query(copyTo(`copy (${select}) to stdout${format}`));
  const arrived = target.query(copyFrom(`copy ${into} from stdin${format}`));
  const stretch = pace === undefined ? undefined : new Stretch(pace);
  let bytes = 0;
  rows.on("data", (piece: Buffer) => {
    bytes += piece.length;
  });
  await pipe(rows, arrived, stretch);
  return { rows: arrived.rowCount, bytes, restedMs: stretch?.restedMs ?? 0 };
}

/** `pipeline` would stop reading when the target fails, and leave the source's session in the middle of a COPY for ever. */
async function pipe(
  rows: CopyToStreamQuery,
  arrived: CopyStreamQuery,
  stretch: Stretch | undefined,
): Promise<void> {
  const read = finished(rows, { writable: false });
  read.catch((error: Error) => {
    stretch?.destroy();
    arrived.destroy(error);
  });
  if (stretch === undefined) rows.pipe(arrived);
  else rows.pipe(stretch).pipe(arrived);
  const written = new Promise<void>((resolve, reject) => {
    arrived.once("finish", resolve);
    arrived.once("error", (error) => {
      arrived.destroy();
      rows.unpipe();
      stretch?.destroy();
      rows.resume();
      reject(error);
    });
  });
  const [was, is] = await Promise.allSettled([read, written]);
  if (was.status === "rejected") throw was.reason;
  if (is.status === "rejected") throw is.reason;
}
