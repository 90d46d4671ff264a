import { createPrivateKey, X509Certificate } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { messageOf, PlanError, type PlanIssue } from "./errors.ts";
import type { Plan, TlsFiles } from "./plan-types.ts";
import { SIDES } from "./words.ts";

/** What the files hold, as PEM. */
export interface TlsSecrets {
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly ca: string | undefined;
}

export interface TlsRead {
  readonly secrets: TlsSecrets;
  readonly issues: readonly PlanIssue[];
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/**
 * Reads certificates and keys, and proves that they are what the plan says and fit together: else the first sign would be a
 * refused handshake. Messages name paths, never contents. `path`: where the files stand in the plan.
 */
export function readTls(path: string, files: TlsFiles): TlsRead {
  const issues: PlanIssue[] = [];
  const problem = (name: string, message: string) =>
    issues.push({ path: `${path}.${name}`, message });
  const cert = read(files.cert, (message) => problem("cert", message));
  const key = read(files.key, (message) => problem("key", message));
  const ca = read(files.ca, (message) => problem("ca", message));
  const chain = certificates(files.cert, cert, (message) => problem("cert", message));
  const secret = privateKey(files.key, key, (message) => problem("key", message));
  certificates(files.ca, ca, (message) => problem("ca", message));
  const [own] = chain;
  if (own !== undefined && secret !== undefined && !own.checkPrivateKey(secret))
    problem(
      "key",
      `found a key in ${files.key} that is not the one of the certificate in ${files.cert}`,
    );
  const secrets = { cert, key, ca };
  if (issues.length === 0) {
    const refused = refusal(secrets);
    if (refused !== undefined) issues.push({ path, message: refused });
  }
  return { secrets, issues };
}

/** What OpenSSL has against them, such as a digest that is too weak. */
function refusal({ cert, key, ca }: TlsSecrets): string | undefined {
  try {
    createSecureContext({ cert, key, ca });
    return undefined;
  } catch (error) {
    return `found files that TLS refuses: ${messageOf(error)}`;
  }
}

/** Refuses a plan whose files for TLS do not hold, all problems at once. */
export function requireTlsFiles(plan: Plan): void {
  const { tls } = plan.proxy;
  const issues = tls === undefined ? [] : [...readTls("proxy.tls", tls).issues];
  for (const side of SIDES) issues.push(...readTls(`${side}.tls`, plan[side].tls ?? {}).issues);
  if (issues.length > 0) throw new PlanError(plan.file, issues);
}

type Say = (message: string) => void;

function read(file: string | undefined, say: Say): string | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file, "latin1");
  } catch (error) {
    const { code = "unreadable" } = error as NodeJS.ErrnoException;
    say(
      code === "ENOENT" ? `found no file ${file}` : `found ${file}, which cannot be read (${code})`,
    );
    return undefined;
  }
}

function certificates(
  file: string | undefined,
  pem: string | undefined,
  say: Say,
): X509Certificate[] {
  if (pem === undefined) return [];
  try {
    const found = (pem.match(PEM_CERTIFICATE) ?? []).map((one) => new X509Certificate(one));
    if (found.length === 0)
      say(`found no certificate in ${file}, expected PEM (-----BEGIN CERTIFICATE-----)`);
    return found;
  } catch {
    say(`found a certificate in ${file} that cannot be read, expected PEM of X.509`);
    return [];
  }
}

function privateKey(
  file: string | undefined,
  pem: string | undefined,
  say: Say,
): KeyObject | undefined {
  if (pem === undefined) return undefined;
  if (pem.includes("ENCRYPTED")) {
    say(`found a key with a passphrase in ${file}, expected one without`);
    return undefined;
  }
  try {
    return createPrivateKey(pem);
  } catch {
    say(`found no private key in ${file}, expected PEM (-----BEGIN PRIVATE KEY-----)`);
    return undefined;
  }
}
