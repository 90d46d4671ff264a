import { recover } from "../../switchover/flip-recover.ts";
import { runFlip } from "../../switchover/flip.ts";
import type { FlipRequest } from "../../switchover/flip-types.ts";
import { flipDeps } from "./flip-deps.ts";
import type { FlipConfig } from "./flip-deps.ts";

/** Run as a process of its own by tests that kill or pause it: one flip, or one recovery, then its result on stdout. */
interface Job {
  readonly config: FlipConfig;
  readonly flip?: FlipRequest;
}

const job = JSON.parse(process.argv[2] ?? "") as Job;
const deps = flipDeps(job.config);
try {
  const result = job.flip === undefined ? await recover(deps) : await runFlip(deps, job.flip);
  process.stdout.write(JSON.stringify({ result }));
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  process.stdout.write(JSON.stringify({ code: code ?? "none", message }));
}
