import { styleText } from "node:util";
import Table from "cli-table3";
import { PHASES, SIDES } from "../config/words.ts";
import type { Receipt } from "../store/control/history.ts";
import type { Gate } from "../switchover/gate-facts.ts";
import type { MirrorStatus, SidecarStatus, Status, TableStatus } from "../switchover/status.ts";

/** The status as a compact screen. Colours only where stdout can show them and NO_COLOR is not set. */
export function statusScreen(status: Status, now: Date = new Date()): string {
  const lines = [
    `${bold(status.plan)}   phase ${bold(status.phase)}${sinceText(status, now)}   authority ${bold(status.authority)}   epoch ${status.epoch}`,
    ...status.problems.map((problem) => line("problem", bad(problem))),
    ...(status.gap === null ? [] : [line("gap", bad(status.gap))]),
    ...(status.controller.leading || status.phase_since === null
      ? []
      : [line("controller", warn("none leads"))]),
    ...wentBackLines(status.went_back, now),
    ...pausedLines(status.paused),
    ...maintenanceLines(status.maintenance),
    line("reads", `old ${percent(1 - status.reads.new)}   new ${percent(status.reads.new)}`),
    line("mirror", mirrorText(status.mirror)),
    line("backfill", backfillText(status.backfill)),
    ...progressTable(status.backfill.tables),
    ...deferredLines(status.backfill.deferred),
    line("verify", verifyText(status.verify, now)),
    ...shadowLines(status.shadow),
    line("quarantine", quarantineText(status.quarantine, ": see crossfade quarantine list")),
    ...refusedLines(status.databases),
    line("next", status.next),
    ...backLines(status),
    ...gateLines(status.gates),
    ...sidecarLines(status.sidecars),
    ...(status.flip === null ? [] : [line("last flip", receiptText(status.flip))]),
  ];
  return lines.join("\n");
}

/** How many keys are left behind; `more` follows where there are some. */
export function quarantineText(keys: Status["quarantine"], more = ""): string {
  if (keys === null) return warn("not known");
  return keys === 0 ? "empty" : warn(`${count(keys)} keys${more}`);
}

/** A receipt in one or two lines: what moved, how long writes waited, what it cost. */
export function receiptText(receipt: Receipt): string {
  const { kind, from, to, ok, epoch, why } = receipt;
  const outcome = ok ? good(kind === "drill" ? "ends where it began" : "done") : warn("undone");
  const reason = why === null ? "" : `\n${" ".repeat(12)}${why}`;
  return `${kind} ${from} → ${to}: ${outcome}, ${holdText(receipt)}, epoch ${epoch}${reason}`;
}

/** What nobody measured (no sidecar took part) is said to be unknown, not zero. */
function holdText({ writes_held: held, hold_ms: hold, failed }: Receipt): string {
  if (held === null || hold === null) return "no sidecar measured the hold";
  return `${count(held)} writes held, longest ${ms(hold.max)}, p99 ${ms(hold.p99)}, failed ${failed ?? "unknown"}`;
}

export function gateText(gate: Gate): string {
  const mark = { pass: good("pass   "), fail: bad("fail   "), unknown: warn("unknown") }[
    gate.state
  ];
  const limit = gate.limit === null ? "" : ` (limit ${gate.limit})`;
  return `${mark} ${gate.name}${gate.value === null ? "" : ` ${gate.value}`}${limit}: ${gate.why}`;
}

export function mirrorText(mirror: MirrorStatus): string {
  const lag = mirror.lag_ms === null ? "lag unknown" : `lag ${ms(mirror.lag_ms)}`;
  const done = `${count(mirror.keys)} keys in ${count(mirror.passes)} passes`;
  if (mirror.state !== "running")
    return `${mirror.state}${mirror.why === null ? "" : `   ${mirror.why}`}`;
  return `running   ${mirror.direction}   ${lag}   ${done}${mirror.deferred > 0 ? `   ${count(mirror.deferred)} deferred` : ""}`;
}

export function backfillText({ state, throttle, tables, rows_per_s }: Status["backfill"]): string {
  if (state === "none") return "nothing planned";
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const rate = state === "running" ? `   ${count(rows_per_s)} rows/s` : "";
  return `${state}   ${count(rows)} rows${rate}${throttle === null ? "" : `   ${warn(throttle)}`}`;
}

function progressTable(tables: readonly TableStatus[]): string[] {
  if (tables.length === 0) return [];
  const table = new Table({
    ...PLAIN_TABLE,
    head: ["table", "chunks", "", "rows", "left"],
    colAligns: ["left", "right", "left", "right", "right"],
  });
  for (const row of tables) {
    const left =
      row.failed > 0
        ? bad(`${row.failed} failed`)
        : row.done === row.chunks
          ? good("done")
          : row.eta_s === null
            ? "unknown"
            : seconds(row.eta_s);
    table.push([
      row.table,
      `${row.done}/${row.chunks}`,
      bar(row.done, row.chunks),
      count(row.rows),
      left,
    ]);
  }
  return table
    .toString()
    .split("\n")
    .map((text) => `${" ".repeat(12)}${text.trimEnd()}`);
}

/** Nothing once all is back: it is as it was. */
function deferredLines(deferred: Status["backfill"]["deferred"]): string[] {
  const open = deferred.filter(({ state }) => state !== "built");
  if (open.length === 0) return [];
  return [
    line("rebuild", `${deferred.length - open.length} of ${deferred.length} are back on new`),
    ...open.map(({ kind, table, name, state, error }) =>
      line("", `${kind} ${name} of ${table}: ${state}${error === null ? "" : `   ${bad(error)}`}`),
    ),
  ];
}

export function verifyText(verify: Status["verify"], now: Date): string {
  if (verify.state === "none") return "not yet";
  const differ = verify.missing + verify.extra + verify.different;
  const counts = `${count(verify.missing)} missing, ${count(verify.extra)} extra, ${count(verify.different)} different`;
  const age =
    verify.clean_at === null
      ? "never clean yet"
      : `clean ${seconds((now.getTime() - Date.parse(verify.clean_at)) / 1000)} ago`;
  const trip = verify.round_trip?.failed ?? 0;
  const lost =
    trip > 0 ? `   ${bad(`${count(trip)} rows of new do not survive the way back`)}` : "";
  const why = verify.why === null ? "" : `   ${bad(verify.why)}`;
  return `${verify.state}${why}   ${age}${differ > 0 ? `   ${bad(counts)}` : ""}${lost}`;
}

/** Nothing before the first read was compared. */
function shadowLines({ samples, mismatches, noise, groups }: Status["shadow"]): string[] {
  if (samples === 0) return [];
  const different = `${count(mismatches)} different`;
  const cancelled = noise > 0 ? `   ${count(noise)} noise` : "";
  return [
    line(
      "shadow",
      `${count(samples)} reads compared   ${mismatches > 0 ? bad(different) : different}${cancelled}`,
    ),
    ...groups
      .slice(0, 5)
      .map((group) => line("", `${count(group.count)} × ${group.route} at ${group.path}`)),
  ];
}

/** How to go back, as short as can be read at night. */
export function backLines({ phase }: Status): string[] {
  if (phase === "off" || phase === "unknown") return [];
  if (phase === "done") return [line("back", "no way back but a restore")];
  const to = PHASES[PHASES.indexOf(phase) - 1];
  const flip = phase === "write-new" ? ", with a flip that keeps every write" : "";
  return [line("back", `\`crossfade rollback\` goes to ${to}${flip}`)];
}

export function maintenanceLines(maintenance: Status["maintenance"]): string[] {
  if (maintenance === null) return [];
  return [line("maintenance", warn(`on, writes are answered with 503: ${maintenance}`))];
}

export function wentBackLines(went: Status["went_back"], now: Date): string[] {
  if (went === null) return [];
  const ago = seconds((now.getTime() - Date.parse(went.at)) / 1000);
  return [
    line("went back", bad(`by itself from ${went.from}, ${ago} ago: ${went.why}`)),
    line("", `not again by itself before ${went.until}`),
  ];
}

function pausedLines(paused: Status["paused"]): string[] {
  const what = (["backfill", "mirror"] as const).filter((role) => paused[role]);
  return what.length === 0 ? [] : [line("paused", warn(what.join(", ")))];
}

function refusedLines(databases: Status["databases"]): string[] {
  return SIDES.flatMap((side) => {
    const database = databases[side];
    if (!database.reachable || database.refused_writes === 0) return [];
    return [
      line(
        "refused",
        warn(`${count(database.refused_writes)} writes to ${side} that bypassed the sidecar`),
      ),
    ];
  });
}

function gateLines(gates: readonly Gate[]): string[] {
  return gates.map((gate, i) => line(i === 0 ? "gates" : "", gateText(gate)));
}

function sidecarLines(sidecars: readonly SidecarStatus[]): string[] {
  if (sidecars.length === 0) return [line("sidecars", "none")];
  return sidecars.map((sidecar, i) => {
    const holding = sidecar.holding ? `   ${warn("holding writes")}` : "";
    const down = sidecar.new_app_down ? `   ${warn("the new app does not answer")}` : "";
    return line(
      i === 0 ? "sidecars" : "",
      `${sidecar.id}   epoch ${sidecar.epoch}   seen ${ms(sidecar.seen_ms)} ago${holding}${down}`,
    );
  });
}

export function sinceText({ phase_since: since }: Status, now: Date): string {
  return since === null ? "" : ` for ${seconds((now.getTime() - Date.parse(since)) / 1000)}`;
}

const NO_BORDERS = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  right: "",
  "right-mid": "",
  mid: "",
  "mid-mid": "",
  middle: "",
} as const;

/** A table without lines: readable, and easy to cut with other tools. */
export const PLAIN_TABLE = {
  chars: NO_BORDERS,
  style: {
    head: [] as string[],
    border: [] as string[],
    compact: true,
    "padding-left": 0,
    "padding-right": 2,
  },
};

export function line(label: string, text: string): string {
  return `${label.padEnd(12)}${text}`;
}

export function bar(done: number, all: number): string {
  const width = 20;
  const filled = all === 0 ? width : Math.floor((done / all) * width);
  return `${"#".repeat(filled)}${".".repeat(width - filled)}`;
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

export function percent(share: number): string {
  return `${Math.round(share * 1000) / 10} %`;
}

export function ms(value: number): string {
  return value < 10
    ? `${value.toFixed(1)} ms`
    : value < 10_000
      ? `${Math.round(value)} ms`
      : seconds(value / 1000);
}

export function seconds(value: number): string {
  if (value < 90) return `${Math.round(value)} s`;
  return value < 5_400 ? `${Math.round(value / 60)} min` : `${(value / 3_600).toFixed(1)} h`;
}

export const good = (text: string) => styleText("green", text);
export const bad = (text: string) => styleText("red", text);
export const warn = (text: string) => styleText("yellow", text);
export const bold = (text: string) => styleText("bold", text);
