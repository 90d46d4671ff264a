import { afterEach, expect, test, vi } from "vitest";
import { RunningState } from "../../config/lifecycle.ts";
import { silentLog } from "../support/control.ts";

afterEach(() => void vi.useRealTimers());

const HOUR_MS = 3_600_000;

function loop(): RunningState {
  vi.useFakeTimers();
  return new RunningState({ name: "test", log: silentLog });
}

test("what is to be woken soon is woken once, however often that is asked for, and then again", async () => {
  const running = loop();
  for (let round = 0; round < 2; round += 1) {
    running.wakeIn(50);
    vi.advanceTimersByTime(40);
    running.wakeIn(50);
    expect(vi.getTimerCount()).toBe(1);
    const slept = running.sleep(HOUR_MS);
    vi.advanceTimersByTime(10);
    await slept;
    expect(vi.getTimerCount()).toBe(0);
  }
});

test("a loop that has stopped is not woken, and keeps no process alive", async () => {
  const running = loop();
  running.wakeIn(50);
  running.stop();
  running.wakeIn(50);
  expect(vi.getTimerCount()).toBe(0);
  await running.sleep(HOUR_MS);
});
