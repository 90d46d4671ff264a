import { setTimeout as sleep } from "node:timers/promises";
import { CrossfadeError } from "../config/errors.ts";
import { roleOf } from "./proxy-processes.ts";
import type { Role } from "./role.ts";
import type { Supervisor } from "./supervisor.ts";

export type Started = readonly {
  readonly name: string;
  readonly role: Role;
  readonly listen: string | undefined;
}[];

const AGAIN_MS = 200;

/**
 * Starts these processes at once and resolves when all are ready; rejects with the first that is refused.
 *
 * Both addresses were free before. Where two `up` began at the same moment, each may have one of them now: who has no sidecar
 * ends, so that who has one waits `giveWayMs` for the other address.
 */
export async function startAll(
  supervisor: Supervisor,
  names: readonly string[],
  giveWayMs = 15_000,
): Promise<Started> {
  const isSidecar = (name: string) => roleOf(name) === "proxy";
  const sidecars = new Map(names.filter(isSidecar).map((name) => [name, supervisor.start(name)]));
  const started = (name: string) =>
    sidecars.get(name) ?? startWith([...sidecars.values()], supervisor, name, giveWayMs);
  return Promise.all(
    names.map(async (name) => ({ name, role: roleOf(name), listen: await started(name) })),
  );
}

async function startWith(
  sidecars: readonly Promise<unknown>[],
  supervisor: Supervisor,
  name: string,
  giveWayMs: number,
): Promise<string | undefined> {
  const deadline = performance.now() + giveWayMs;
  for (;;) {
    try {
      return await supervisor.start(name);
    } catch (error) {
      const isTaken = error instanceof CrossfadeError && error.code === "PORT_IN_USE";
      if (!isTaken || sidecars.length === 0 || performance.now() > deadline) throw error;
      await Promise.all(sidecars);
    }
    await sleep(AGAIN_MS);
  }
}
