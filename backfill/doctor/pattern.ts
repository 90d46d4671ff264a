/** A name as a part of a regular expression that matches it, quoted or not. */
export function namePattern(name: string): string {
  const escaped = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return `(?:${escaped(name)}|${escaped(`"${name.replaceAll('"', '""')}"`)})`;
}
