import type { Diagnosis } from "../backfill/doctor/doctor.ts";
import type { Finding, Severity } from "../backfill/doctor/finding.ts";

const WIDTH = 80;
const TITLES: Readonly<Record<Severity, string>> = {
  error: "Would break",
  warning: "To know beforehand",
  unknown: "Not proven",
  ok: "Proven",
};

/** The diagnosis as lines of at most 80 columns, the worst first; a long word or a path may stick out. */
export function renderDiagnosis({ findings, roundTrip, estimates }: Diagnosis): string[] {
  const severities: readonly Severity[] = ["error", "warning", "unknown", "ok"];
  return [
    ...severities.flatMap((severity) => {
      const own = findings.filter((finding) => finding.severity === severity);
      return own.length === 0 ? [] : ["", TITLES[severity], ...own.flatMap(renderFinding)];
    }),
    "",
    ...wrap(roundTripLine(roundTrip), ""),
    ...wrap(`Estimates: ${estimatesText(estimates)}`, ""),
  ];
}

/** What the copy will take, in a sentence. */
export function estimatesText(estimates: Diagnosis["estimates"]): string {
  return `${number(estimates.rows)} old rows make ${number(estimates.target_rows)} new ones: about ${bytes(estimates.target_bytes)} on the new side's disk, ${bytes(estimates.wal_bytes)} of WAL and ${duration(estimates.seconds)} (${estimates.assumes}).`;
}

function renderFinding({ severity, path, what, example, fix }: Finding): string[] {
  if (severity === "ok") return wrap(`${path}: ${what}`, "  ");
  const shown =
    example === undefined
      ? []
      : [
          `e.g. ${Object.entries(example.key)
            .map(([name, value]) => `${name} = ${value ?? "null"}`)
            .join(
              ", ",
            )}${example.message === undefined || what.includes(example.message) ? "" : `: ${example.message}`}`,
          ...Object.entries(example.columns ?? {}).map(
            ([name, { expected, found }]) =>
              `${name}: was ${expected ?? "null"}, comes back ${found ?? "null"}`,
          ),
        ];
  return [
    ...wrap(path, "  "),
    ...[what, ...shown].flatMap((text) => wrap(text, "    ")),
    ...(fix === undefined ? [] : wrap(`fix (${fix.where}): ${fix.text.split("\n")[0]}`, "    ")),
  ];
}

function roundTripLine(trip: Diagnosis["roundTrip"]): string {
  if (trip === undefined) return "Round trip: none, the plan has no reverse.";
  const unknown =
    trip.unknown.length === 0 ? "" : `; not proven for ${trip.unknown.length} mappings`;
  return `Round trip: ${number(trip.rows)} old rows went there and back, ${number(trip.different)} differ${unknown}.`;
}

const number = (n: number) => n.toLocaleString("en-US");

function bytes(n: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(n) / 3));
  return `${(n / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3_600).toFixed(1)} h`;
}

function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(/\s+/)) {
    const longer = line.trim() === "" ? `${line}${word}` : `${line} ${word}`;
    if (longer.length > WIDTH && line.trim() !== "") {
      lines.push(line);
      line = `${indent}${indent === "" ? "" : "  "}${word}`;
    } else line = longer;
  }
  return [...lines, line];
}
