import type { Stay } from "./report.ts";

/** A chart of the report: lines over the same moments. What it draws also stands in a table. */
export interface Chart {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly ChartLine[];
}

export interface ChartLine {
  readonly name: string;
  /** New is dashed: colour is never the only difference. */
  readonly look: "old" | "new" | "plain";
  readonly values: readonly (number | null)[];
}

/** Of the drawing, in its own units: the page scales it. */
const [WIDTH, HEIGHT] = [560, 170];
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 8, 18, 22];
/** A phase narrower than this has a line, and no name beside it. */
const NAME_WIDTH = 54;
/** Points further apart than so many of their usual distances: nothing was recorded in between. */
const HOLE = 5;

/** One SVG without scripts, fonts and ids, so that several fit into a page. Times are Unix seconds, rising. */
export function drawChart(chart: Chart, at: readonly number[], stays: readonly Stay[]): string {
  const [first = 0] = at;
  const last = Math.max(at.at(-1) ?? 0, first + 1);
  const top = axisTop(Math.max(0, ...known(chart)));
  const x = (time: number) =>
    round(LEFT + ((time - first) / (last - first)) * (WIDTH - LEFT - RIGHT));
  const y = (value: number) => round(HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM));
  const grid = [0, top / 2, top].map(
    (value) =>
      `<path class="grid" d="M${LEFT} ${y(value)}H${WIDTH - RIGHT}"/><text x="${LEFT - 5}" y="${y(value) + 3}" text-anchor="end">${shown(value)}</text>`,
  );
  const ends = `<text x="${LEFT}" y="${HEIGHT - 6}">${moment(first)}</text><text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end">${moment(last)} UTC</text>`;
  const lines = chart.lines.map(({ look, values }) => {
    const path = strokes(at, values).flatMap((points) =>
      points.map(([time, value], i) => `${i === 0 ? "M" : "L"}${x(time)} ${y(value)}`),
    );
    return `<path class="line ${look}" d="${path.join("")}"/>`;
  });
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${describe(chart)}">${grid.join("")}${phaseMarks(stays, x, [first, last])}${ends}${lines.join("")}</svg>`;
}

type Point = readonly [time: number, value: number];

/** A line is broken where nothing is known; a point alone is drawn as a short one. */
function strokes(at: readonly number[], values: readonly (number | null)[]): Point[][] {
  const usual = ((at.at(-1) ?? 0) - (at[0] ?? 0)) / Math.max(1, at.length - 1);
  const found: Point[][] = [];
  let before: number | undefined;
  for (const [i, time] of at.entries()) {
    const value = values[i] ?? null;
    if (value === null) {
      before = undefined;
      continue;
    }
    if (before === undefined || time - before > HOLE * usual) found.push([]);
    found.at(-1)?.push([time, value]);
    before = time;
  }
  return found.map((points) => (points.length === 1 ? [...points, ...points] : points));
}

/** Where each phase was entered, with its name where there is room. */
function phaseMarks(
  stays: readonly Stay[],
  x: (time: number) => number,
  [first, last]: readonly [number, number],
): string {
  return stays
    .map(({ phase, from, to }) => {
      const begin = Math.max(Date.parse(from) / 1000, first);
      const end = to === null ? last : Math.min(Date.parse(to) / 1000, last);
      if (end < begin) return "";
      const name =
        x(end) - x(begin) < NAME_WIDTH ? "" : `<text x="${x(begin) + 3}" y="12">${phase}</text>`;
      return `<path class="mark" d="M${x(begin)} ${TOP - 14}V${HEIGHT - BOTTOM}"><title>${phase}</title></path>${name}`;
    })
    .join("");
}

/** For who does not see it: what each line goes between, and where it ends. */
function describe({ title, unit, lines }: Chart): string {
  const parts = lines.map(({ name, values }) => {
    const all = values.filter((value) => value !== null);
    return all.length === 0
      ? `${name}: nothing recorded`
      : `${name}: from ${shown(Math.min(...all))} to ${shown(Math.max(...all))}, at the end ${shown(all.at(-1) ?? 0)}`;
  });
  return `${title} (${unit}). ${parts.join("; ")}`;
}

function known({ lines }: Chart): number[] {
  return lines.flatMap(({ values }) => values.filter((value) => value !== null));
}

/** The next of 1, 2, 5, 10, 20, …: an axis people can read. */
function axisTop(highest: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(highest, 1)));
  return ([1, 2, 5, 10].find((step) => step * power >= highest) ?? 10) * power;
}

function shown(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 2 });
}

function moment(time: number): string {
  return new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
