/** Numbers and times as people read them. What is not known is said to be unknown, never 0. */

const WHOLE = new Intl.NumberFormat("en-US");

export function count(value: number): string {
  return WHOLE.format(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function percent(share: number): string {
  return `${Math.round(share * 1000) / 10} %`;
}

export function ms(value: number | null): string {
  if (value === null) return "unknown";
  if (value < 10) return `${Math.round(value * 10) / 10} ms`;
  return value < 10_000 ? `${count(Math.round(value))} ms` : seconds(value / 1000);
}

export function seconds(value: number): string {
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5_400) return `${Math.round(value / 60)} min`;
  return value < 172_800
    ? `${(value / 3_600).toFixed(1)} h`
    : `${(value / 86_400).toFixed(1)} days`;
}

export function since(iso: string, nowMs: number): string {
  return seconds(Math.max(0, nowMs - Date.parse(iso)) / 1000);
}

export function clock(iso: string): string {
  return new Date(iso).toLocaleTimeString(undefined, { hour12: false });
}
