import { estimateCopy } from "../backfill/doctor/copy-estimate.ts";
import type { Estimates } from "../backfill/doctor/estimate.ts";
import { redact } from "../config/describe.ts";
import { messageOf } from "../config/errors.ts";
import { compileBoth } from "./both-sides.ts";
import type { Wiring } from "./both-sides.ts";
import type { GateResult } from "./gate-facts.ts";
import { size } from "./spans.ts";

/** The gate before the copy: whether what it makes fits into `backfill.disk_free`. */

/** A text says why nothing could be estimated. */
export type CopyEstimate = Estimates | string;

/** Tables do not grow much meanwhile; whoever waits for gates asks five times a second. */
const FOR_MS = 600_000;
/** After a failure it is tried again soon: a database may be back. */
const FAILED_FOR_MS = 5_000;

/** Looks at a few rows of each table and says what the copy will take; what was said stands for a while. */
export function estimatesOf({ plan }: Wiring): () => Promise<CopyEstimate> {
  let last: { readonly until: number; readonly said: CopyEstimate } | undefined;
  return async () => {
    if (last !== undefined && performance.now() < last.until) return last.said;
    const said = await tryEstimate(plan);
    const forMs = typeof said === "string" ? FAILED_FOR_MS : FOR_MS;
    last = { until: performance.now() + forMs, said };
    return said;
  };
}

async function tryEstimate(plan: Wiring["plan"]): Promise<CopyEstimate> {
  try {
    const { forward } = await compileBoth(plan);
    return await estimateCopy(plan, forward);
  } catch (error) {
    return redact(messageOf(error));
  }
}

/** Undefined: the plan does not say how much room there is. */
export function roomGate(
  copy: CopyEstimate | undefined,
  freeBytes: number | undefined,
): GateResult | undefined {
  if (freeBytes === undefined) return undefined;
  const gate = { name: "room", limit: `at most ${size(freeBytes)}` } as const;
  if (copy === undefined || typeof copy === "string") {
    const why =
      copy === undefined
        ? "estimated when `crossfade advance` asks for it; `--dry-run` shows it"
        : `what the copy will take could not be estimated: ${copy}`;
    return { ...gate, state: "unknown", value: null, why, heals: "never" };
  }
  const value = `about ${size(copy.target_bytes)}`;
  if (copy.target_bytes <= freeBytes)
    return { ...gate, state: "pass", value, why: "the copy fits", heals: "never" };
  const why =
    "the new tables and their indexes would not fit: make room on the new database's disk, then raise backfill.disk_free";
  return { ...gate, state: "fail", value, why, heals: "never" };
}
