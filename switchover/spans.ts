/** Times and sizes as gates say them. */

/** `3.2 s`, `45 min`, `3 d` */
export function span(ms: number): string {
  if (ms < 10_000) return `${Math.round(ms / 100) / 10} s`;
  if (ms < 600_000 && ms % 60_000 !== 0) return `${Math.round(ms / 1_000)} s`;
  return ms < 172_800_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 86_400_000)} d`;
}

/** `9.6 MB`, `1.2 GB` */
export function size(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
