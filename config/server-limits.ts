import type { z } from "zod";
import { count, duration, section, size } from "./fields.ts";

/** What the plan asks of both database servers before a phase is entered: `gates.transactions`, `replicas`, `wal`, `disk`. */

export interface ServerLimits {
  /** Age of the oldest transaction, ms. */
  readonly transactionMs: number | undefined;
  readonly replicas: ReplicaLimits | undefined;
  /** WAL that one replication slot keeps. */
  readonly walBytes: number | undefined;
  /** Size of a database. */
  readonly diskBytes: number | undefined;
}

export interface ReplicaLimits {
  readonly lagMs: number;
  /** How many there must be at least. */
  readonly old: number;
  readonly new: number;
}

/** Of a plan that asks for nothing. */
export const NO_SERVER_LIMITS: ServerLimits = {
  transactionMs: undefined,
  replicas: undefined,
  walBytes: undefined,
  diskBytes: undefined,
};

/** A part of `gates`. */
export const serverFields = {
  transactions: duration()
    .optional()
    .describe(
      "Oldest transaction that either database may have open, such as 5m. Left out: their age is not asked for.",
    ),
  replicas: section({
    lag: duration().describe("How far a standby may be behind, such as 10s."),
    old: count(0, 100).prefault(0).describe("Standbys that old must have connected at least."),
    new: count(0, 100).prefault(0).describe("Standbys that new must have connected at least."),
  })
    .optional()
    .describe(
      "Standbys of both databases, those of other regions too, keep up. Left out: they are not asked for.",
    ),
  wal: size()
    .optional()
    .describe(
      "Most WAL that a replication slot of either server, whoever made it, may keep, such as 20GB. Left out: not asked for.",
    ),
  disk: size()
    .optional()
    .describe(
      "Largest size of either database, such as 400GB: Postgres does not tell how much of its disk is free. Left out: not asked for.",
    ),
} as const;

type Fields = z.output<ReturnType<typeof section<typeof serverFields>>>;

/** From what the file says to what the other modules use. */
export function serverLimits({ transactions, replicas, wal, disk }: Fields): ServerLimits {
  return {
    transactionMs: transactions,
    replicas: replicas && { lagMs: replicas.lag, old: replicas.old, new: replicas.new },
    walBytes: wal,
    diskBytes: disk,
  };
}

/** Whether anything has to be asked of the servers. */
export function asksServers(limits: ServerLimits): boolean {
  return Object.values(limits).some((limit) => limit !== undefined);
}
