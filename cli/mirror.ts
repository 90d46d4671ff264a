import { roleCommand } from "./role.ts";

export const mirror = roleCommand({
  name: "mirror",
  summary: "runs a mirror: what changes on the authority is synced to the other side",
  details: `Follows the feed of the side that takes writes and makes the rows of the other side from it. One mirror works at a time;
more of them wait and take over. It may be killed at any moment: a crash costs a repeat and never a row.`,
  async work({ plan, log, signal, ready }) {
    const { runMirrorRole } = await import("../proxy/mirror/role.ts");
    ready();
    await runMirrorRole({ plan, log, signal });
  },
});
