import { spawn } from "node:child_process";
import { dirname } from "node:path";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { HookPlan } from "../config/policy.ts";
import type { Phase } from "../config/words.ts";
import { addEvent } from "../store/control/history.ts";
import { readMigration } from "../store/control/migration.ts";
import type { Execution } from "./effects.ts";

/** The operator's own commands and URLs at the entry into a phase. */

export interface Passage {
  readonly from: Phase;
  readonly to: Phase;
  readonly kind: "advance" | "rollback";
}

/** What is kept of a command's complaint. */
const TAIL = 500;

/**
 * Runs the hooks of a phase, one after the other. A failure before an advance throws REFUSED; before a rollback it is only
 * recorded: the way back stays open. After the entry nothing can be stopped any more.
 */
export async function runHooks(
  execution: Execution,
  when: "before" | "after",
  passage: Passage,
): Promise<void> {
  const hooks = execution.plan.policy.hooks[passage.to]?.[when] ?? [];
  for (const [index, hook] of hooks.entries()) {
    const name = `hooks.${passage.to}.${when}[${index}]`;
    try {
      await runHook(hook, await document(execution, when, passage), execution);
      await addEvent(execution.store, {
        kind: "hook",
        by: execution.by,
        detail: { hook: name, ok: true },
      });
    } catch (error) {
      execution.signal.throwIfAborted();
      const why = messageOf(error);
      await addEvent(execution.store, {
        kind: "hook",
        by: execution.by,
        detail: { hook: name, ok: false, why },
      });
      execution.log.warn({ hook: name }, `controller: ${name}: ${why}`);
      if (when === "before" && passage.kind === "advance")
        throw new CrossfadeError("REFUSED", `${name} stopped it: ${why}`, {
          hint: "Nothing was changed. Repair what it complains of, then ask again.",
        });
    }
  }
}

async function document({ store, by }: Execution, when: string, passage: Passage): Promise<string> {
  const { plan, phase, authority, epoch, readsNew, canaryStep, phaseSince } =
    await readMigration(store);
  return JSON.stringify({
    when,
    ...passage,
    by,
    migration: {
      plan,
      phase,
      authority,
      epoch,
      reads_new: readsNew,
      canary_step: canaryStep,
      phase_since: phaseSince,
    },
  });
}

async function runHook(hook: HookPlan, body: string, { plan, signal }: Execution): Promise<void> {
  const limit = AbortSignal.timeout(hook.timeoutMs);
  const either = AbortSignal.any([limit, signal]);
  try {
    await ("run" in hook
      ? runCommand(hook.run, body, dirname(plan.file), either)
      : post(hook.http, body, either));
  } catch (error) {
    if (limit.aborted)
      throw new CrossfadeError("TIMEOUT", `took longer than ${hook.timeoutMs} ms`, {
        cause: error,
      });
    throw error;
  }
}

async function runCommand(
  [command = "", ...args]: readonly string[],
  body: string,
  cwd: string,
  signal: AbortSignal,
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    // A group of its own, so that what it has started ends with it.
    const child = spawn(command, args, { cwd, stdio: ["pipe", "ignore", "pipe"], detached: true });
    let said = "";
    child.stderr.on("data", (part: Buffer) => {
      said = (said + part.toString()).slice(-TAIL);
    });
    // One that does not read its input has closed it.
    child.stdin.on("error", () => {});
    child.stdin.end(body);
    const stop = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // Gone already.
      }
      reject(new CrossfadeError("FAILED", "stopped"));
    };
    signal.addEventListener("abort", stop, { once: true });
    child.on("error", (error) =>
      reject(new CrossfadeError("FAILED", `cannot be started: ${error.message}`)),
    );
    child.on("close", (code, killed) => {
      signal.removeEventListener("abort", stop);
      const end = code === null ? `ended by ${killed}` : `exit code ${code}`;
      if (code === 0) resolve();
      else
        reject(
          new CrossfadeError("FAILED", [end, said.trim()].filter((part) => part !== "").join(": ")),
        );
    });
  });
}

/** Never says the URL: it may carry a token. */
export async function post(url: string, body: string, signal: AbortSignal): Promise<void> {
  const { host } = new URL(url);
  let response: Response;
  try {
    response = await fetch(url, {
      method: "POST",
      body,
      signal,
      headers: { "content-type": "application/json" },
      redirect: "error",
    });
  } catch (error) {
    throw new CrossfadeError("FAILED", `${host} did not answer`, { cause: error });
  }
  await response.body?.cancel();
  if (!response.ok) throw new CrossfadeError("FAILED", `${host} answered ${response.status}`);
}
