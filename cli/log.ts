import { type Logger, pino } from "pino";
import { redact } from "../config/describe.ts";
import { lastStanding } from "../config/standing.ts";

export type CliLog = Logger;

export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;

export interface LogOptions {
  readonly level: string;
  readonly plan: string;
  readonly role: string;
}

export type LogStream = Pick<typeof process.stderr, "isTTY" | "hasColors"> & {
  write(text: string): unknown;
};

/**
 * Logs go to stderr: one JSON line each, readable ones on a terminal. Every line has plan, role, phase and epoch (null: not
 * known yet). Lines are masked as they leave, because an error of a driver may quote the URL it was given.
 */
export async function createLog(
  { level, plan, role }: LogOptions,
  stream: LogStream = process.stderr,
): Promise<CliLog> {
  const shape = await lineShape(stream);
  const destination = { write: (line: string) => void stream.write(redact(shape(line))) };
  const { pid } = process;
  return pino(
    { level, base: { plan, role, pid }, mixin: standing, mixinMergeStrategy },
    destination,
  );
}

function standing(): Readonly<Record<string, unknown>> {
  return { ...(lastStanding() ?? { phase: null, epoch: null }) };
}

/** What a line says itself goes first: a mirror may speak of an epoch that is over. */
function mixinMergeStrategy(line: object, mixed: object): object {
  return { ...mixed, ...line };
}

async function lineShape(stream: LogStream): Promise<(line: string) => string> {
  if (!stream.isTTY) return (line) => line;
  const { prettyFactory } = await import("pino-pretty");
  return prettyFactory({
    colorize: stream.hasColors(),
    ignore: "plan,pid,role,phase,epoch",
    messageFormat: "[{role}{if phase} · {phase}{end}{if epoch} · epoch {epoch}{end}] {msg}",
  });
}
