import { setTimeout as sleep } from "node:timers/promises";
import { startTraffic } from "../support/traffic.ts";
import { userIds } from "./seed.ts";

/**
 * Traffic for the example, until Ctrl-C: a hundred clients that read, write, and read back what they wrote. Environment:
 * TARGET_URL (default http://127.0.0.1:8080, the sidecar), RATE in requests a second (default 100).
 */

const { TARGET_URL: baseUrl = "http://127.0.0.1:8080", RATE: rate = "100" } = process.env;
const REPORT_MS = 10_000;

const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => abort.abort());
const { signal } = abort;

/** Apps that still start are no failure. */
async function untilItAnswers(): Promise<void> {
  const answers = () =>
    fetch(`${baseUrl}/healthz`).then(
      async (response) => (await response.body?.cancel(), response.ok),
      () => false,
    );
  while (!signal.aborted && !(await answers()))
    await sleep(500, undefined, { signal }).catch(() => undefined);
}

await untilItAnswers();
const traffic = startTraffic({
  baseUrl,
  users: userIds(),
  clients: 100,
  ratePerSecond: Number(rate),
});
const report = () => {
  const { requests, failed, reads, failures } = traffic.counters;
  const example =
    failures[0] === undefined ? "" : `, e.g. ${failures[0].request}: ${failures[0].why}`;
  process.stdout.write(
    `${requests} requests, failed ${failed}${example}; ${reads.checked} answers checked, stale ${reads.stale}\n`,
  );
};
while (!signal.aborted) {
  await sleep(REPORT_MS, undefined, { signal }).catch(() => undefined);
  report();
}
await traffic.stop();
