import { randomBytes } from "node:crypto";
import { listen } from "../store/control/listen.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import { install } from "../store/control/schema.ts";
import { Controller } from "../switchover/controller.ts";
import { openRealEngine } from "../switchover/wiring.ts";
import { roleCommand, type RoleInput } from "./role.ts";
import { aborted } from "./signals.ts";

export const control = roleCommand({
  name: "control",
  summary: "runs a controller: phases, gates and flips; and the operator port",
  details: `Executes what commands ask for and does what the phase needs. One controller leads; more of them wait and take over, and finish a
flip that was interrupted. Creates the control store if it is not there. On operate.listen it answers the operator API,
metrics and the console.`,
  work: runControlRole,
});

async function runControlRole({ plan, log, signal, ready }: RoleInput): Promise<void> {
  const { startApi } = await import("../switchover/api.ts");
  await using stack = new AsyncDisposableStack();
  const store = openControlStore(plan, {
    role: "control",
    instance: randomBytes(4).toString("hex"),
  });
  stack.defer(() => closeControlStore(store));
  const listener = listen(store, log, "controller");
  stack.defer(() => listener.close());
  const parts = {
    plan,
    store,
    listener,
    log,
    engine: openRealEngine({ plan, store, listener, log }),
  };
  const api = await startApi(parts);
  stack.defer(() => api.close());
  // Ready before the store is asked: under a supervisor, a database that is away must not take the sidecar down with it.
  ready(new URL(api.url).host);
  await install(store);
  const controller = new Controller(parts);
  stack.defer(() => controller.stop());
  controller.start();
  await aborted(signal);
}
