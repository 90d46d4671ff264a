import { expect, test } from "vitest";
import type { Phase } from "../../config/words.ts";
import { ask, runWorkers, startController } from "../support/controller-world.ts";
import {
  ItemsClients,
  itemsOf,
  itemsServicePlan,
  startItemsSidecar,
} from "../support/items-service.ts";

/** Every kind of way back: with and without a flip, to where chunks are kept, forgotten, and to where nothing is installed. */
const PAIRS: readonly (readonly [Phase, Phase])[] = [
  ["canary", "backfill"],
  ["read-new", "off"],
  ["write-new", "read-new"],
  ["write-new", "dual-write"],
  ["write-new", "off"],
];

test(
  "back and forward again under load: no request fails, every client reads its own writes, no write is lost",
  { timeout: 240_000 },
  async () => {
    const { plan } = await itemsServicePlan();
    await startController(plan);
    runWorkers(plan);
    const clients = new ItemsClients(await startItemsSidecar(plan));
    for (const [from, to] of PAIRS) {
      await ask(plan, "advance", { to: from, wait: true });
      await clients.progress(20);
      expect(await ask(plan, "rollback", { to, wait: true }), `${from} → ${to}`).toMatchObject({
        phase: to,
      });
      await clients.progress(20);
      expect(clients.failed, `${from} → ${to}`).toEqual([]);
    }
    await ask(plan, "advance", { to: "read-new", wait: true });
    await clients.progress(50);
    await clients.stop();
    expect(await ask(plan, "verify")).toMatchObject({ run: { state: "clean" } });
    expect(clients.stale).toEqual([]);
    expect(clients.failed).toEqual([]);
    const [old, next] = [await itemsOf(plan, "old"), await itemsOf(plan, "new")];
    expect(next).toEqual(old);
    for (const [id, value] of clients.acknowledged) expect(next.get(id), `row ${id}`).toBe(value);
    expect(next.size, "rows that nobody wrote to").toBeGreaterThanOrEqual(120);
  },
);
