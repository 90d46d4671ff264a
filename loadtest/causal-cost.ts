import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse, stringify } from "yaml";
import { freePort } from "../examples/support/free-port.ts";
import { median } from "./bench.ts";
import { crossfade, startRole } from "./cli.ts";
import { paced } from "./paced.ts";

/** What `consistency: causal` adds at the median to `eventual`, ms. */
export interface CausalCost {
  /** To a write, where new answers reads and old takes writes: the larger of canary's and read-new's. */
  readonly causal_write_added_ms: number;
  readonly causal_canary_write_added_ms: number;
  readonly causal_read_new_write_added_ms: number;
  /** Where one side does both: the larger of a write's and a read's. */
  readonly causal_idle_added_ms: number;
  readonly causal_idle_write_added_ms: number;
  readonly causal_idle_read_added_ms: number;
}

const RATE = 200;

/**
 * Two sidecars on one migration that differ in `consistency` alone, started and warmed alike, asked in turn: the difference is
 * what the promise costs. No other sidecar should run. Leaves the migration in read-new.
 */
export async function causalCost(
  planFile: string,
  how: { readonly rounds: number; readonly seconds: number },
): Promise<CausalCost> {
  await using eventual = await startSidecar(planFile, "eventual");
  await using causal = await startSidecar(planFile, "causal");
  const ask = async (url: string, method: "GET" | "POST") =>
    (await paced(url, { rate: RATE, seconds: how.seconds, method })).p50;
  const added = async (method: "GET" | "POST") => {
    const differences: number[] = [];
    for (let round = 0; round < how.rounds; round += 1) {
      // In turn: what the machine does besides hits both alike.
      const first = round % 2 === 0 ? eventual : causal;
      const second = first === eventual ? causal : eventual;
      const p50 = { [first.url]: await ask(first.url, method) };
      p50[second.url] = await ask(second.url, method);
      differences.push((p50[causal.url] ?? NaN) - (p50[eventual.url] ?? NaN));
    }
    return median(differences);
  };
  await crossfade("advance", "--plan", planFile, "--to", "dual-write", "--wait");
  for (const { url } of [eventual, causal])
    for (const method of ["GET", "POST"] as const) await ask(url, method);
  const idleWrite = await added("POST");
  const idleRead = await added("GET");
  await advanceToCanary(planFile, causal.url);
  const canaryWrite = await added("POST");
  await crossfade("advance", "--plan", planFile, "--to", "read-new", "--wait");
  const readNewWrite = await added("POST");
  return {
    causal_write_added_ms: Math.max(canaryWrite, readNewWrite),
    causal_canary_write_added_ms: canaryWrite,
    causal_read_new_write_added_ms: readNewWrite,
    causal_idle_added_ms: Math.max(idleWrite, idleRead),
    causal_idle_write_added_ms: idleWrite,
    causal_idle_read_added_ms: idleRead,
  };
}

/** Resolves when what is asked answers. */
export async function untilAnswers(url: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${url} does not answer`);
}

async function startSidecar(
  planFile: string,
  consistency: "eventual" | "causal",
): Promise<AsyncDisposable & { readonly url: string }> {
  const plan = parse(readFileSync(planFile, "utf8")) as { proxy: object };
  const listen = `127.0.0.1:${await freePort()}`;
  const file = join(dirname(planFile), `${consistency}.yaml`);
  writeFileSync(file, stringify({ ...plan, proxy: { ...plan.proxy, listen, consistency } }));
  const role = startRole("proxy", file);
  const url = `http://${listen}`;
  try {
    await untilAnswers(url);
  } catch (error) {
    await role.stop();
    throw error;
  }
  return { url, [Symbol.asyncDispose]: () => role.stop() };
}

/** The gate of shadow wants to have compared a read. */
async function advanceToCanary(planFile: string, url: string): Promise<void> {
  let advancing = true;
  const reads = async () => {
    while (advancing) await paced(url, { rate: 20, seconds: 0.5, method: "GET" });
  };
  const reading = reads();
  reading.catch(() => undefined);
  try {
    await crossfade("advance", "--plan", planFile, "--to", "canary", "--wait");
  } finally {
    advancing = false;
    await reading;
  }
}
