import pino from "pino";
import { runBackfillRole } from "../../backfill/role.ts";
import { loadPlan } from "../../config/load.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";

/** One role as a process of its own, for tests that kill it: `node role-process.ts mirror|backfill PLAN`. */
const [role, planFile] = process.argv.slice(2);
const plan = loadPlan(planFile ?? "");
const log = pino({ level: process.env["CROSSFADE_TEST_LOG"] ?? "silent" }, pino.destination(2));
const abort = new AbortController();
process.on("SIGTERM", () => abort.abort());
process.on("disconnect", () => abort.abort());
await (role === "mirror" ? runMirrorRole : runBackfillRole)({ plan, log, signal: abort.signal });
process.exit(0);
