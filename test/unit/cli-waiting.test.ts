import { expect, test } from "vitest";
import { waitingFor } from "../../cli/waiting.ts";
import type { Gate } from "../../switchover/gate-facts.ts";

const gate = (name: Gate["name"], state: Gate["state"], why: string): Gate => ({
  name,
  state,
  value: null,
  limit: "none",
  why,
});

test("what a walk waits for: the gates that block, and why; the same as long as they are the same", () => {
  const stay = (left: number) =>
    waitingFor({
      phase: "canary",
      canary_step: 2,
      gates: [
        gate("lag", "pass", "the mirror keeps up"),
        gate("stay", "fail", `this step of canary must last ${left} s more`),
      ],
    });
  expect(stay(273)).toEqual({
    key: "canary step 2 stay",
    text: "canary step 2: waiting for stay (this step of canary must last 273 s more)",
  });
  expect(stay(12)?.key).toBe(stay(273)?.key);
});

test("nothing is said where nothing blocks, or where bars show the copy", () => {
  const at = { phase: "backfill", canary_step: 0 } as const;
  expect(waitingFor({ ...at, gates: [gate("lag", "pass", "")] })).toBeUndefined();
  expect(
    waitingFor({ ...at, gates: [gate("backfill", "fail", ""), gate("verify", "unknown", "")] }),
  ).toBeUndefined();
});
