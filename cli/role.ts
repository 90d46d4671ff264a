import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Command, Context } from "./command.ts";
import { isSupervised } from "./signals.ts";
import type { ChildMessage } from "./supervisor.ts";

/** The roles of `up`, each a command and a process of its own. */
export const ROLES = ["control", "mirror", "backfill", "proxy"] as const;
export type Role = (typeof ROLES)[number];

export interface RoleInput {
  readonly plan: Plan;
  readonly log: Log;
  /** Aborted when the role is to stop. */
  readonly signal: AbortSignal;
  /** Call once when the role works, with host:port if it listens. */
  readonly ready: (listen?: string) => void;
}

export interface RoleCommand extends Pick<Command, "summary" | "details"> {
  readonly name: Role;
  /** Resolves when the role has stopped: drained, position saved, connections closed. */
  readonly work: (input: RoleInput) => Promise<void>;
}

/** A command that runs one role until it is told to stop. */
export function roleCommand({ name, summary, details, work }: RoleCommand): Command {
  return {
    name,
    summary,
    details: `${details}\n\nRuns until SIGTERM or Ctrl-C, then finishes what it has begun and exits 0.`,
    examples: [
      `crossfade ${name}`,
      `crossfade ${name} --plan /etc/crossfade/shop.yaml --log-level debug`,
    ],
    options: [],
    logLevel: "info",
    async run(context) {
      const { plan, log, signal } = context;
      await work({ plan, log, signal, ready: (listen) => announce(context, name, listen) });
      return undefined;
    },
  };
}

/** Says that a role works: to its supervisor, or as the command's document. */
export function announce(
  { plan, output, log }: Context,
  role: Role,
  listen: string | undefined,
): void {
  log.info({ listen }, `${role}: running${listen === undefined ? "" : ` on ${listen}`}`);
  if (!isSupervised())
    return output.result({ json: { plan: plan.name, role, listen: listen ?? null }, text: "" });
  const message: ChildMessage = { t: "ready", listen };
  process.send?.(message);
}
