import { type Dispatcher, Pool } from "undici";
import { percentile } from "./bench.ts";

export interface Pace {
  readonly rate: number;
  readonly seconds: number;
  readonly method: Dispatcher.HttpMethod;
}

/** Identities that the requests carry in turn. */
const CLIENTS = 100;

/** One request after the other at even distances: a load generator that sends in bursts measures its own queue. */
export async function paced(
  url: string,
  { rate, seconds, method }: Pace,
): Promise<{ p50: number; p99: number }> {
  const pool = new Pool(url, { connections: 10 });
  const delays: number[] = [];
  const running: Promise<void>[] = [];
  const started = performance.now();
  for (let n = 0; n < rate * seconds; n += 1) {
    const due = started + (n * 1_000) / rate;
    while (performance.now() < due)
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    running.push(timed(pool, { method, client: n % CLIENTS }, delays));
  }
  await Promise.all(running);
  await pool.close();
  return { p50: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
}

async function timed(
  pool: Pool,
  { method, client }: { method: Dispatcher.HttpMethod; client: number },
  delays: number[],
): Promise<void> {
  const headers = { authorization: `Bearer paced-${client}` };
  const sent = performance.now();
  const { statusCode, body } = await pool.request({ method, path: "/", headers });
  await body.arrayBuffer();
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`);
  delays.push(performance.now() - sent);
}
