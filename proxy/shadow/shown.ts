const MAX_SHOWN = 200;

/** Text of an app as a report carries it: cut, and such as Postgres stores it (no NUL, no half of a surrogate pair). */
export function shownText(text: string): string {
  const short = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN - 1)}…` : text;
  return short.toWellFormed().replaceAll("\0", "\ufffd");
}
