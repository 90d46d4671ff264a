import { type Logger, pino } from "pino";
import { prettyFactory } from "pino-pretty";
import { redact } from "../config/describe.ts";

export type CliLog = Logger;

export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;

export interface LogOptions {
  readonly level: string;
  readonly plan: string;
  readonly role: string;
}

/**
 * Logs go to stderr: one JSON line each, readable ones on a terminal. Every line has plan and role. Lines are masked as
 * they leave, because an error of a driver may quote the URL it was given.
 */
export function createLog({ level, plan, role }: LogOptions): CliLog {
  const shape = lineShape();
  const destination = { write: (line: string) => void process.stderr.write(redact(shape(line))) };
  return pino({ level, base: { plan, role, pid: process.pid } }, destination);
}

function lineShape(): (line: string) => string {
  if (!process.stderr.isTTY) return (line) => line;
  return prettyFactory({
    colorize: process.stderr.hasColors(),
    ignore: "plan,pid",
    messageFormat: "[{role}] {msg}",
  });
}
