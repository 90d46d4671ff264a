import { roleCommand } from "./role.ts";

export const backfill = roleCommand({
  name: "backfill",
  summary: "runs backfill workers: history is copied chunk by chunk",
  details: `Copies the chunks that the controller has planned, backfill.workers at a time; several machines share the work. A worker that is
killed loses nothing: its chunk is copied again by another. Outside of the phase backfill it waits.`,
  async work({ plan, log, signal, ready }) {
    const { runBackfillRole } = await import("../backfill/role.ts");
    ready();
    await runBackfillRole({ plan, log, signal });
  },
});
