import { finished } from "node:stream/promises";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import type { CopyStreamQuery, CopyToStreamQuery } from "pg-copy-streams";
import type { SyncContext } from "./sync.ts";

export interface CopyRows {
  /** What is read of the source. */
  readonly select: string;
  /** Where it goes on the target: a relation, with its columns where it has more. */
  readonly into: string;
  readonly binary: boolean;
}

/**
 * Brings the result of a query on the source into a table of the target, by COPY through this process as bytes. Returns the
 * number of rows. Where the target refuses one, both sessions can be used again when the error comes.
 */
export async function copyRows(
  { source, target }: Pick<SyncContext, "source" | "target">,
  { select, into, binary }: CopyRows,
): Promise<number> {
  const format = binary ? " (format binary)" : "";
  const rows = source.query(copyTo(`copy (${select}) to stdout${format}`));
  const arrived = target.query(copyFrom(`copy ${into} from stdin${format}`));
  await pipe(rows, arrived);
  return arrived.rowCount;
}

/** `pipeline` would stop reading when the target fails, and leave the source's session in the middle of a COPY for ever. */
async function pipe(rows: CopyToStreamQuery, arrived: CopyStreamQuery): Promise<void> {
  const read = finished(rows, { writable: false });
  read.catch((error: Error) => arrived.destroy(error));
  rows.pipe(arrived);
  const written = new Promise<void>((resolve, reject) => {
    arrived.once("finish", resolve);
    arrived.once("error", (error) => {
      arrived.destroy();
      rows.unpipe(arrived);
      rows.resume();
      reject(error);
    });
  });
  const [was, is] = await Promise.allSettled([read, written]);
  if (was.status === "rejected") throw was.reason;
  if (is.status === "rejected") throw is.reason;
}
