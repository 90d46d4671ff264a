/** Which database a URL means, for people and logs: `host:port/dbname`, never a user or a password. Never throws. */
export function describeDatabase(url: string): string {
  const parsed = parseDatabaseUrl(url);
  if (parsed === undefined) return "(unreadable address)";
  const host = parsed.host.includes(":") ? `[${parsed.host}]` : parsed.host;
  return `${host}:${parsed.port}/${parsed.database === "" ? "(default)" : parsed.database}`;
}

export interface DatabaseAddress {
  readonly host: string;
  readonly port: string;
  readonly database: string;
}

/**
 * The parts of a postgres URL that are no secret, or undefined if it cannot be read. A stray `@`, `/`, `#` or `?` of a
 * password that is not percent-encoded moves pieces of it into host, path or query; such a URL counts as unreadable.
 */
export function parseDatabaseUrl(url: string): DatabaseAddress | undefined {
  // `postgres://user@/db?host=/run/postgresql` is legal for Postgres, but not for URL: give it a host to drop again.
  const withHost = url.replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)(?=[/?]|$)/, "$1socket.invalid");
  if (!URL.canParse(withHost)) return undefined;
  const parsed = new URL(withHost);
  if (
    !/^postgres(ql)?:$/.test(parsed.protocol) ||
    parsed.pathname.includes("@") ||
    parsed.hash !== ""
  )
    return undefined;
  if ([...parsed.searchParams.keys()].some((key) => !/^[a-z_]+$/i.test(key))) return undefined;
  const named =
    parsed.hostname === "socket.invalid" ? "" : decode(parsed.hostname.replace(/^\[|\]$/g, ""));
  return {
    host: parsed.searchParams.get("host") ?? (named === "" ? "localhost" : named),
    port: parsed.searchParams.get("port") ?? (parsed.port === "" ? "5432" : parsed.port),
    database: decode(parsed.pathname.replace(/^\//, "")),
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Masks passwords of database URLs in any text. Greedy on purpose: a password with an `@` or a `/` that was not
 * percent-encoded is masked whole, at the price of hiding a second address glued to the first without a blank.
 */
export function redact(text: string): string {
  return text
    .replace(/\b(postgres(?:ql)?|rediss?|mysql):\/\/([^\s"':@/]*):[^\s"']*@/gi, "$1://$2:***@")
    .replace(/\b(https?):\/\/([^\s"':@/]*):[^\s"'/@]*@/gi, "$1://$2:***@")
    .replace(/\b((?:ssl)?password)=[^\s"'&]+/gi, "$1=***");
}
