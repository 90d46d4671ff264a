import { CrossfadeError } from "../config/errors.ts";
import { sourceOf } from "../config/words.ts";
import { run } from "../store/postgres/statement.ts";
import type { SyncContext } from "../store/postgres/sync.ts";
import { writeFence } from "../store/postgres/trigger-feed.ts";

const POLL_MS = 5;

/**
 * Writes a fence on the authority and waits until the mirror has read the feed beyond it: what was committed before
 * is then synced (or in quarantine). Throws TIMEOUT when the mirror does not get there.
 */
export async function awaitFence(context: SyncContext, timeoutMs = 60_000): Promise<void> {
  const fence = await writeFence(context.source, sourceOf(context.compiled.direction));
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const [row] = await run(
      context.target,
      "select (read >= $2::bigint)::text from crossfade.position where direction = $1 and epoch = $3::int",
      [context.compiled.direction, fence.toString(), context.epoch],
    );
    if (row?.[0] === "true") return;
    if (performance.now() > deadline) {
      throw new CrossfadeError(
        "TIMEOUT",
        `the mirror did not read as far as a fence written ${Math.round(timeoutMs / 1000)} s ago`,
        {
          hint: "Look at `crossfade status`: is the mirror running, and is its lag falling?",
        },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
