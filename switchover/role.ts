import { randomBytes } from "node:crypto";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { listen } from "../store/control/listen.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import { install, isInstalled } from "../store/control/schema.ts";
import { startApi } from "./api.ts";
import { Controller } from "./controller.ts";
import { openRealEngine } from "./wiring.ts";

export interface ControlRoleOptions {
  readonly plan: Plan;
  readonly log: Log;
}

/** The control role, running. */
export interface ControlRole {
  /** Base URL of the operator API and console. */
  readonly listen: string;
  /** Resolves after `stop`. */
  readonly ended: Promise<void>;
  /** Gives up the lead (a flip ends first), stops answering, closes its connections. */
  stop(): Promise<void>;
}

/**
 * Starts a controller and the operator API. Several may run: one leads, all answer. The control store is created if it is
 * not there, so the plan is checked against both databases first and nothing is left behind by a plan that does not hold.
 */
export async function startControlRole({ plan, log }: ControlRoleOptions): Promise<ControlRole> {
  const store = openControlStore(plan, {
    role: "control",
    instance: randomBytes(4).toString("hex"),
  });
  const listener = listen(store, log, "controller");
  const close = async () => {
    await listener.close();
    await closeControlStore(store);
  };
  try {
    const engine = openRealEngine({ plan, store, listener, log });
    if (!(await isInstalled(store))) await engine.check();
    await install(store);
    const api = await startApi({ plan, store, listener, engine, log });
    const controller = new Controller({ plan, store, engine, listener, log });
    controller.start();
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const stop = async () => {
      await controller.stop();
      await api.close();
      await close();
      resolve();
    };
    return { listen: api.url, ended, stop };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Runs the control role until the signal. */
export async function runControlRole(
  options: ControlRoleOptions & { readonly signal: AbortSignal },
): Promise<void> {
  const role = await startControlRole(options);
  if (!options.signal.aborted) {
    await new Promise<void>((resolve) =>
      options.signal.addEventListener("abort", () => resolve(), { once: true }),
    );
  }
  await role.stop();
}
