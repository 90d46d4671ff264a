/** A duration for people: `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function describeSeconds(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1_000)} ms`;
  const whole = Math.round(seconds);
  const units: readonly (readonly [number, string])[] = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => whole >= size);
  let left = whole;
  return units
    .slice(first, first + 2)
    .flatMap(([size, name]) => {
      const n = Math.trunc(left / size);
      left -= n * size;
      return n === 0 ? [] : [`${n} ${name}`];
    })
    .join(" ");
}
