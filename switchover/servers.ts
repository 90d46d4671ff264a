import { redact } from "../config/describe.ts";
import { messageOf } from "../config/errors.ts";
import { asksServers } from "../config/server-limits.ts";
import type { Side } from "../config/words.ts";
import { readServerHealth } from "../store/postgres/server-health.ts";
import type { ServerHealth } from "../store/postgres/server-health.ts";
import { onSide } from "./both-sides.ts";
import type { Wiring } from "./both-sides.ts";
import type { Servers } from "./server-gates.ts";

/** Whoever waits for gates asks five times a second; the servers are asked once. */
const FOR_MS = 1_000;

/** Asks both servers how they are, where the plan's gates want to know; answers stand for a moment. */
export function watchServers(wiring: Wiring): () => Promise<Servers | undefined> {
  let last: { readonly at: number; readonly servers: Promise<Servers> } | undefined;
  return async () => {
    if (!asksServers(wiring.plan.policy.servers)) return undefined;
    const now = performance.now();
    if (last === undefined || now - last.at > FOR_MS) last = { at: now, servers: ask(wiring) };
    return last.servers;
  };
}

async function ask(wiring: Wiring): Promise<Servers> {
  const [old, next] = await Promise.all([healthOf(wiring, "old"), healthOf(wiring, "new")]);
  return { old, new: next };
}

async function healthOf(wiring: Wiring, side: Side): Promise<ServerHealth | string> {
  try {
    return await onSide(wiring, side, readServerHealth);
  } catch (error) {
    return redact(messageOf(error));
  }
}
