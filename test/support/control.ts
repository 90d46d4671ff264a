import { randomBytes } from "node:crypto";
import { onTestFinished } from "vitest";
import type { Log } from "../../config/lifecycle.ts";
import { listen } from "../../store/control/listen.ts";
import type { Listener } from "../../store/control/listen.ts";
import { closeControlStore, openControlStore } from "../../store/control/open.ts";
import type { Audience, ControlStore } from "../../store/control/open.ts";
import { install } from "../../store/control/schema.ts";

/** Discards everything. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Opens the control store of a database for one test and closes it after. Not installed. */
export function openTestStore(
  database: string,
  options: { readonly plan?: string; readonly schema?: string } = {},
): ControlStore {
  const store = openControlStore(
    {
      name: options.plan ?? "test-plan",
      control: { database, schema: options.schema ?? "crossfade" },
    },
    { role: "test", instance: randomBytes(4).toString("hex") },
  );
  onTestFinished(() => closeControlStore(store));
  return store;
}

/** An installed control store in a schema of its own. */
export async function freshStore(database: string): Promise<ControlStore> {
  const store = openTestStore(database, { schema: `control_${randomBytes(4).toString("hex")}` });
  await install(store);
  return store;
}

/** A connected listener, closed after the test. */
export async function openTestListener(
  store: ControlStore,
  ...audiences: readonly Audience[]
): Promise<Listener> {
  const listener = listen(store, silentLog, ...audiences);
  onTestFinished(() => listener.close());
  await new Promise<void>((resolve) => {
    listener.onConnected(resolve);
    if (listener.connected) resolve();
  });
  return listener;
}
