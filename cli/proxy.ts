import { runProxyRole } from "../proxy/role.ts";
import { roleCommand } from "./role.ts";

export const proxy = roleCommand({
  name: "proxy",
  summary: "runs a sidecar: the service's traffic goes through it",
  details: `Listens on proxy.listen and passes every request to the old or the new app, as phase and authority say. It needs no database to
start: without the control store it goes on with the last state it knew. Stopping it answers what is in flight first.`,
  async work({ plan, log, signal, ready }) {
    await runProxyRole({ plan, log, signal, onReady: (url) => ready(new URL(url).host) });
  },
});
