import { blocks } from "../switchover/gates.ts";
import { readStatus, type Status } from "../switchover/status.ts";
import type { Context } from "./command.ts";
import { whileLooking } from "./looking.ts";
import { withStatusInput } from "./status-input.ts";

const LOOK_MS = 2_000;
/** What goes on for long is said again: somebody may have come to the terminal just now. */
const AGAIN_MS = 60_000;

/** What a walk waits for now, and a key that stays the same as long as it is the same. Undefined: nothing that takes time. */
export function waitingFor(
  status: Pick<Status, "phase" | "canary_step" | "gates">,
): { readonly key: string; readonly text: string } | undefined {
  const blocking = status.gates.filter(blocks);
  // The copy shows itself as bars.
  if (blocking.length === 0 || blocking.some(({ name }) => name === "backfill")) return undefined;
  const at = status.canary_step === 0 ? status.phase : `canary step ${status.canary_step}`;
  const key = [at, ...blocking.map(({ name }) => name)].join(" ");
  const gates = blocking.map(({ name, why }) => `${name} (${why})`);
  return { key, text: `${at}: waiting for ${gates.join(", ")}` };
}

/** Says on stderr what a command that waits is waiting for; nothing with --json. */
export async function sayingWhy<T>(context: Context, work: () => Promise<T>): Promise<T> {
  if (context.output.json) return work();
  return withStatusInput(context, async (input) => {
    let seen: string | undefined;
    let said = { key: "", at: 0 };
    const look = async () => {
      const waiting = waitingFor(await readStatus(input));
      const isNew = waiting?.key !== seen;
      seen = waiting?.key;
      // A gate that opens by the next look is not worth a line.
      if (waiting === undefined || isNew) return;
      if (waiting.key === said.key && performance.now() - said.at < AGAIN_MS) return;
      said = { key: waiting.key, at: performance.now() };
      context.output.note(waiting.text);
    };
    return whileLooking(
      context,
      { everyMs: LOOK_MS, look, unseen: "cannot see what it waits for" },
      work,
    );
  });
}
