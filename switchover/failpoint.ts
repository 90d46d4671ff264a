import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

let fired = false;

/**
 * A named place where a test ends or pauses this process: `CROSSFADE_FAILPOINT=name:kill` or `name:stop`, once. What can
 * be interrupted there is written beside each name in switchover/flip/SPEC.md. Without the variable it does nothing.
 */
export async function failpoint(name: string): Promise<void> {
  const armed = process.env["CROSSFADE_FAILPOINT"];
  if (armed === undefined || fired) return;
  const [wanted, action] = armed.split(":");
  if (wanted !== name) return;
  fired = true;
  writeSync(2, `failpoint ${name}\n`);
  process.kill(process.pid, action === "stop" ? "SIGSTOP" : "SIGKILL");
  // The signal may be delivered a moment after `kill` returns: nothing may happen in between.
  await sleep(20);
}
