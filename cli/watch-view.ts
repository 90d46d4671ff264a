import { PHASES } from "../config/words.ts";
import { healthOf } from "../switchover/health.ts";
import type { Status, TableStatus } from "../switchover/status.ts";
import {
  backfillText,
  backLines,
  bad,
  bar,
  bold,
  count,
  gateText,
  good,
  line,
  maintenanceLines,
  mirrorText,
  ms,
  percent,
  quarantineText,
  receiptText,
  seconds,
  sinceText,
  verifyText,
  warn,
  wentBackLines,
} from "./status-view.ts";

/** The console's picture for a terminal: exactly one screen, whatever the migration's size. */

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** What `line` gives its label. */
const LABEL = 12;

/** Lists share what the fixed lines leave; each says how many it does not show. */
export function watchScreen(status: Status, { columns, rows }: ScreenSize, now: Date): string {
  const head = headLines(status, now);
  const tail = tailLines(status, columns);
  const lists = [gateLines(status), tableLines(status.backfill.tables), sidecarLines(status)];
  const room = Math.max(0, rows - 1 - head.length - tail.length);
  const shares = share(
    room,
    lists.map((list) => list.length),
  );
  const body = lists.flatMap((list, i) => shorten(list, shares[i] ?? 0));
  return [...head, ...body, ...tail]
    .slice(0, Math.max(1, rows - 1))
    .map((text) => clip(text, columns))
    .join("\n");
}

function headLines(status: Status, now: Date): string[] {
  const { plan, phase, authority, epoch, reads } = status;
  return [
    `${bold(plan)}   ${healthText(status)}`,
    trackText(status),
    `phase ${bold(phase)}${sinceText(status, now)}   epoch ${epoch}${status.controller.doing === null ? "" : `   busy: ${status.controller.doing}`}`,
    ...status.problems.map((problem) => line("problem", bad(problem))),
    ...(status.gap === null ? [] : [line("gap", bad(status.gap))]),
    ...wentBackLines(status.went_back, now),
    ...maintenanceLines(status.maintenance),
    line(
      "reads",
      `old ${percent(1 - reads.new)} ${bar(1 - reads.new, 1)} new ${percent(reads.new)}   writes ${bold(authority)}`,
    ),
    line("mirror", mirrorText(status.mirror)),
    line("backfill", backfillText(status.backfill)),
    line("verify", verifyText(status.verify, now)),
  ];
}

function tailLines(status: Status, columns: number): string[] {
  const { shadow, quarantine, flip, next } = status;
  const different = `${count(shadow.mismatches)} different`;
  return [
    ...(shadow.samples === 0
      ? []
      : [
          line(
            "shadow",
            `${count(shadow.samples)} reads compared   ${shadow.mismatches > 0 ? bad(different) : different}`,
          ),
        ]),
    line("quarantine", quarantineText(quarantine)),
    ...(flip === null
      ? []
      : receiptText(flip)
          .split("\n")
          .slice(0, 1)
          .map((text) => line("last flip", text))),
    ...wrap(next, columns - LABEL).map((text, i) => line(i === 0 ? "next" : "", text)),
    ...backLines(status),
  ];
}

/** The first reason; the console lists them all. */
function healthText(status: Status): string {
  const { level, text, reasons } = healthOf(status);
  const [first, ...others] = reasons;
  const why = first === undefined ? "" : `: ${first}`;
  const more = others.length === 0 ? "" : `, and ${others.length} more`;
  if (level === "well") return good(`✓ ${text}`);
  return level === "trouble" ? bad(`✗ ${text}${more}${why}`) : warn(`! ${text}${more}${why}`);
}

/** `off dual-write [backfill] verify …`: readable without colours. */
function trackText({ phase }: Status): string {
  return PHASES.map((each) => (each === phase ? bold(`[${each}]`) : each)).join(" ");
}

/** What stands in the way first. */
function gateLines({ gates }: Status): string[] {
  const sorted = gates.toSorted((a, b) => Number(a.state === "pass") - Number(b.state === "pass"));
  return sorted.map((gate, i) => line(i === 0 ? "gates" : "", gateText(gate)));
}

/** What is still copied first. */
function tableLines(tables: readonly TableStatus[]): string[] {
  const sorted = tables.toSorted(
    (a, b) => Number(a.done === a.chunks) - Number(b.done === b.chunks),
  );
  return sorted.map((table, i) => {
    const left =
      table.failed > 0
        ? bad(`${table.failed} failed`)
        : table.done === table.chunks
          ? good("done")
          : table.eta_s === null
            ? "time left unknown"
            : `${seconds(table.eta_s)} left`;
    const name = table.table.slice(0, 24).padEnd(24);
    return line(i === 0 ? "tables" : "", `${name} ${bar(table.done, table.chunks)} ${left}`);
  });
}

function sidecarLines({ sidecars, epoch }: Status): string[] {
  if (sidecars.length === 0) return [line("sidecars", "none")];
  return sidecars.map((sidecar, i) => {
    const at = sidecar.epoch === epoch ? `epoch ${sidecar.epoch}` : warn(`epoch ${sidecar.epoch}`);
    const more = `${sidecar.holding ? `   ${warn("holding writes")}` : ""}${sidecar.new_app_down ? `   ${warn("new app away")}` : ""}`;
    return line(
      i === 0 ? "sidecars" : "",
      `${sidecar.id}   ${at}   seen ${ms(sidecar.seen_ms)} ago${more}`,
    );
  });
}

/** Two lines at most, broken between words; what is longer is cut with the screen. */
function wrap(text: string, width: number): string[] {
  if (text.length <= width) return [text];
  const at = text.lastIndexOf(" ", width);
  return at <= 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** Rows for each list: one for every list in turn until all are spent or all fit. */
function share(rows: number, wanted: readonly number[]): number[] {
  const given = wanted.map(() => 0);
  for (let left = rows; left > 0;) {
    const before = left;
    for (const [i, want] of wanted.entries()) {
      const has = given[i] ?? 0;
      if (left === 0 || has >= want) continue;
      given[i] = has + 1;
      left -= 1;
    }
    if (left === before) break;
  }
  return given;
}

function shorten(lines: readonly string[], rows: number): string[] {
  if (lines.length <= rows) return [...lines];
  if (rows === 0) return [];
  return [...lines.slice(0, rows - 1), line("", `… ${lines.length - rows + 1} more`)];
}

/** Cuts a line to what is seen of it: colours take no room, and are not cut in half. */
export function clip(text: string, columns: number): string {
  // oxlint-disable-next-line no-control-regex -- that is what a colour begins with
  const parts = text.split(/(\u001B\[[0-9;]*m)/);
  let left = columns;
  return parts
    .map((part, i) => {
      if (i % 2 === 1) return part;
      const seen = part.length <= left ? part : left > 0 ? `${part.slice(0, left - 1)}…` : "";
      left -= part.length;
      return seen;
    })
    .join("");
}
