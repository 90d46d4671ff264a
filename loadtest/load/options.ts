import { readFileSync } from "node:fs";
import { Command, InvalidArgumentError, Option } from "commander";
import { messageOf } from "../../config/errors.ts";
import { isPhase, type Phase, PHASES } from "../../config/words.ts";
import type { LoadRequest } from "./cannon.ts";
import type { Strength } from "./measure.ts";
import { wholeNumber } from "../whole-number.ts";

export interface LoadOptions extends Strength {
  /** In the order of the migration. */
  readonly phases: readonly Phase[];
  readonly json: boolean;
  readonly out: string;
  readonly budget: string | undefined;
  /** The user's own service; undefined: the example. */
  readonly service: ServiceOptions | undefined;
}

export interface ServiceOptions {
  readonly target: string;
  readonly through: string | undefined;
  readonly request: LoadRequest;
}

interface Flags {
  readonly rounds?: number;
  readonly seconds?: number;
  readonly rate: number;
  readonly connections: number;
  readonly phases?: readonly Phase[];
  readonly quick: boolean;
  readonly json: boolean;
  readonly out: string;
  readonly budget?: string;
  readonly target?: URL;
  readonly through?: URL;
  readonly path?: string;
  readonly method: string;
  readonly body?: string;
  readonly header: Readonly<Record<string, string>>;
}

const METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] as const;
const QUICK_PHASES: readonly Phase[] = ["off", "read-new", "write-new"];

/** Reads the command line. Throws a CommanderError whose exit code is 2 (0 after `--help`) and whose message is printed. */
export function loadOptions(argv: readonly string[]): LoadOptions {
  const command = program();
  command.parse(argv, { from: "user" });
  const flags = command.opts<Flags>();
  const { target, through, quick } = flags;
  const fail = (message: string) => command.error(`error: ${message}`, { exitCode: 2 });
  if (target === undefined) {
    for (const name of ["through", "path", "body"] as const)
      if (flags[name] !== undefined)
        fail(`--${name} describes a service of your own: it needs --target URL`);
  } else if (flags.phases !== undefined)
    fail(
      "--phases is for the example: with --target, the phase is what your migration stands in now",
    );
  for (const [name, url] of Object.entries({ target, through }))
    // The URLs stand in the report.
    if (url !== undefined && `${url.username}${url.password}` !== "")
      fail(
        `--${name}: found a name or password in the URL, expected none: send them with --header`,
      );
  if (flags.rate < flags.connections)
    fail(
      `found --rate ${flags.rate} below --connections ${flags.connections}, expected at least one request a second on every connection`,
    );
  return {
    rounds: flags.rounds ?? (quick ? 1 : 3),
    seconds: flags.seconds ?? (quick ? 1 : 5),
    rate: flags.rate,
    connections: flags.connections,
    phases: flags.phases ?? (quick ? QUICK_PHASES : PHASES),
    json: flags.json,
    out: flags.out,
    budget: flags.budget,
    service:
      target === undefined
        ? undefined
        : {
            target: target.href,
            through: through?.href,
            request: requestOf(flags, target),
          },
  };
}

function requestOf({ path, method, body, header }: Flags, target: URL): LoadRequest {
  return {
    method: method as (typeof METHODS)[number],
    path: path ?? `${target.pathname}${target.search}`,
    headers: header,
    ...(body === undefined ? {} : { body }),
  };
}

function program(): Command {
  return new Command("npm run loadtest --")
    .description(
      `Measures what the sidecar costs: the same load straight at the app and through the sidecar, in turn.
Without --target it starts the ColonyCraft example on throw-away databases and walks it through the phases.
Exit codes: 0 measured (and within the budget), 1 failed or over the budget, 2 the command line or the budget file does not hold.`,
    )
    .option("--rounds <n>", "rounds of each measurement (default: 3)", wholeNumber(1, 100))
    .option("--seconds <n>", "seconds of one measurement (default: 5)", wholeNumber(1, 3_600))
    .option("--rate <n>", "requests per second of the fixed rate", wholeNumber(1, 100_000), 200)
    .option("--connections <n>", "connections of the load", wholeNumber(1, 10_000), 20)
    .option("--phases <a,b>", `only these, of ${PHASES.join(", ")} (default: all)`, phaseList)
    .option("--quick", "1 round of 1 second, in off, read-new and write-new", false)
    .option("--json", "one JSON document on stdout, everything else on stderr", false)
    .option("--out <dir>", "where loadtest.json and loadtest.html go", "loadtest-results")
    .option("--budget <file>", "limits as YAML or JSON (docs/loadtest.md): decides the exit code")
    .option("--target <url>", "a service of your own, reached directly", httpUrl)
    .option("--through <url>", "the same service through its sidecar", httpUrl)
    .option(
      "--path <path>",
      "with --target: the path of the request (default: the target's)",
      absolutePath,
    )
    .addOption(
      new Option("--method <method>", "with --target: its method").choices(METHODS).default("GET"),
    )
    .option("--body <text>", "with --target: its content; @FILE reads it from a file", content)
    .option("--header <name: value>", "with --target: a header of it; again for more", header, {})
    .exitOverride((error) => {
      throw Object.assign(error, { exitCode: error.exitCode === 0 ? 0 : 2 });
    });
}

function phaseList(text: string): Phase[] {
  const names = text.split(",").map((name) => name.trim());
  const wrong = names.find((name) => !isPhase(name));
  if (wrong !== undefined)
    throw new InvalidArgumentError(
      `Found phase ${JSON.stringify(wrong)}, expected ${PHASES.join(", ")}.`,
    );
  return PHASES.filter((phase) => names.includes(phase));
}

function httpUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw new InvalidArgumentError("Expected http://host:port or https://host:port.");
  return url;
}

function absolutePath(text: string): string {
  if (!/^\/[\x21-\x7e]*$/.test(text))
    throw new InvalidArgumentError("Expected a path that begins with / and has no spaces.");
  return text;
}

function content(text: string): string {
  if (!text.startsWith("@")) return text;
  try {
    return readFileSync(text.slice(1), "utf8");
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

function header(text: string, before: Readonly<Record<string, string>>): Record<string, string> {
  const found = /^([\w!#$%&'*+.^`|~-]+):\s*([^\r\n]*)$/.exec(text);
  if (found === null) throw new InvalidArgumentError('Expected "name: value".');
  return { ...before, [found[1] ?? ""]: found[2] ?? "" };
}
