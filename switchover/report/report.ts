import { publicPlan } from "../../config/public-plan.ts";
import { packageVersion } from "../../config/version.ts";
import type { Phase } from "../../config/words.ts";
import {
  readEvents,
  readReceipts,
  type Receipt,
  type TimelineEvent,
} from "../../store/control/history.ts";
import { isInstalled } from "../../store/control/schema.ts";
import { NO_SERIES, readSeries, type SeriesDocument } from "../../store/control/series.ts";
import {
  lastRowCounts,
  lastVerifiedTables,
  type TableCounted,
  type TableVerified,
} from "../../store/control/verify-history.ts";
import { keysLeftBehind, recordedLeftBehind, type KeyLeftBehind } from "../left-behind.ts";
import type { SideStatus } from "../engine.ts";
import type { Gate } from "../gate-facts.ts";
import { readStatus, type Status, type StatusInput } from "../status.ts";

/** The whole migration as facts: all three formats of `crossfade report` print this and nothing else. */
export interface Report {
  readonly plan: string;
  readonly generated_at: string;
  /** Of this program, and of both servers; null: not reached. */
  readonly versions: {
    readonly crossfade: string;
    readonly node: string;
    readonly old: string | null;
    readonly new: string | null;
  };
  readonly verdict: { readonly ok: boolean; readonly sentence: string };
  readonly status: Status;
  /** How long each stay in a phase took; the last is still going on. */
  readonly stays: readonly Stay[];
  readonly tables: readonly ReportedTable[];
  /** Rows of every mapped table of both sides, when they were last counted. */
  readonly counts: readonly TableCounted[];
  /** How every gate stood at each step that was taken. */
  readonly passages: readonly Passage[];
  readonly receipts: readonly (Receipt & { readonly at: Date })[];
  /** In done: as it stood when it was removed. */
  readonly quarantine: readonly KeyLeftBehind[];
  /** Reads, requests, errors, latencies and lag over time: what the charts draw. */
  readonly series: SeriesDocument;
  readonly timeline: readonly TimelineEvent[];
  /** The plan without its secrets. */
  readonly configuration: unknown;
}

export interface Stay {
  readonly phase: Phase;
  readonly from: string;
  readonly to: string | null;
  readonly seconds: number;
}

/** A driving table as its last comparison found what its rows make. */
export interface ReportedTable extends TableVerified {
  /** Keys left behind, by reason; accepted losses too. */
  readonly rejected: Readonly<Record<string, number>>;
}

/** A step through the gates. */
export interface Passage {
  readonly at: string;
  readonly from: string;
  readonly to: string;
  readonly by: string;
  readonly gates: readonly Gate[];
}

const ALL = 1_000_000;
/** As many as a chart on paper can show, and a person can read through. */
const SERIES_POINTS = 120;

/** Reads what was recorded. Works in every phase, also before anything is installed. */
export async function readReport(input: StatusInput): Promise<Report> {
  const { plan, store, engine } = input;
  const status = await readStatus(input);
  const recorded = status.phase !== "unknown" && (await isInstalled(store));
  const [timeline, receipts, verified, counts, series] = recorded
    ? await Promise.all([
        readEvents(store, { limit: ALL }),
        readReceipts(store, ALL),
        lastVerifiedTables(store),
        lastRowCounts(store),
        readSeries(store, "all", SERIES_POINTS),
      ])
    : [[], [], [], [], NO_SERIES];
  const isMirrored = recorded && status.phase !== "off" && status.phase !== "done";
  const quarantine = isMirrored
    ? await keysLeftBehind(engine, status.mirror.direction)
    : status.phase === "done"
      ? recordedLeftBehind(timeline)
      : [];
  const tables = verified.map((table) => reportedTable(table, quarantine));
  const now = new Date();
  return {
    plan: plan.name,
    generated_at: now.toISOString(),
    versions: {
      crossfade: packageVersion(),
      node: process.version,
      old: versionOf(status.databases.old),
      new: versionOf(status.databases.new),
    },
    verdict: verdict(status, tables, receipts, quarantine),
    status,
    stays: staysOf(timeline, now),
    tables,
    counts,
    passages: passagesOf(timeline),
    receipts: receipts.toReversed(),
    quarantine,
    series,
    timeline,
    configuration: publicPlan(plan),
  };
}

function versionOf(side: SideStatus): string | null {
  return side.reachable ? side.version : null;
}

/** One sentence an auditor may quote: it names what is wrong, and says nothing is only where nothing is. */
function verdict(
  status: Status,
  tables: readonly TableVerified[],
  receipts: readonly Receipt[],
  quarantine: readonly KeyLeftBehind[],
): Report["verdict"] {
  const wrong: string[] = [];
  const direction = status.mirror.direction;
  const differing = tables.filter(
    (table) => table.direction === direction && table.missing + table.extra + table.different > 0,
  );
  if (differing.length > 0)
    wrong.push(`rows differ in ${differing.map(({ table }) => table).join(", ")}`);
  if (status.quarantine !== null && status.quarantine > 0)
    wrong.push(`${status.quarantine} keys are in quarantine`);
  const failed = receipts.reduce((sum, receipt) => sum + (receipt.failed ?? 0), 0);
  if (failed > 0) wrong.push(`${failed} held writes failed in flips`);
  if (status.gap !== null) wrong.push(`a gap is open: ${status.gap}`);
  wrong.push(...status.problems);
  if (status.phase === "unknown")
    return { ok: false, sentence: "The control store cannot be read, so nothing can be said." };
  if (wrong.length > 0) return { ok: false, sentence: `In ${status.phase}: ${wrong.join("; ")}.` };
  const verified =
    tables.length === 0 ? "no row has been compared yet" : `every compared row is equal`;
  const accepted = quarantine.filter(({ state }) => state === "accepted").length;
  const left =
    accepted === 0
      ? "nothing is in quarantine"
      : `nothing is in quarantine but ${accepted} ${accepted === 1 ? "key" : "keys"} whose loss was accepted`;
  return {
    ok: true,
    sentence:
      status.phase === "off"
        ? "Nothing is installed; the old side serves everything."
        : `In ${status.phase}, with ${status.authority} as the authority: ${verified}, ${left}, no held write failed.`,
  };
}

/** Comparisons count by driving table, and so does what was rejected. */
function reportedTable(table: TableVerified, quarantine: readonly KeyLeftBehind[]): ReportedTable {
  const rejected: Record<string, number> = {};
  for (const { direction, source_table: source, reason } of quarantine) {
    if (table.direction === direction && source === table.table)
      rejected[reason] = (rejected[reason] ?? 0) + 1;
  }
  return { ...table, rejected };
}

function passagesOf(timeline: readonly TimelineEvent[]): Passage[] {
  return timeline.flatMap(({ kind, at, by, detail }) => {
    const gates = detail["gates"];
    if (kind !== "phase" || !Array.isArray(gates)) return [];
    const from = String(detail["from"]);
    const to = String(detail["to"]);
    const step = from === to ? `${to}, step ${String(detail["canary_step"])}` : to;
    return [{ at: at.toISOString(), from, to: step, by, gates: gates as Gate[] }];
  });
}

function staysOf(timeline: readonly TimelineEvent[], now: Date): Stay[] {
  const entries = timeline.filter(
    ({ kind, detail }) => kind === "phase" && detail["from"] !== detail["to"],
  );
  return entries.map((entry, i) => {
    const end = entries[i + 1]?.at;
    return {
      phase: entry.phase,
      from: entry.at.toISOString(),
      to: end?.toISOString() ?? null,
      seconds: ((end ?? now).getTime() - entry.at.getTime()) / 1_000,
    };
  });
}
