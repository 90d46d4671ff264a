import { deferObjects } from "../../backfill/deferring.ts";
import { rebuildDeferred } from "../../backfill/rebuilding.ts";
import { openControlStore } from "../../store/control/open.ts";
import { compilePlan } from "../../store/postgres/engine.ts";
import { loadPlan } from "../../config/load.ts";

/** Run as a process of its own by tests that kill it: drops what the plan defers, or builds it again. */
const [does, file = ""] = process.argv.slice(2);
const plan = loadPlan(file);
const say = () => {};
const options = {
  plan,
  store: openControlStore(plan, { role: "test", instance: "child" }),
  log: { debug: say, info: say, warn: say, error: say },
  signal: new AbortController().signal,
};
if (does === "drop")
  await deferObjects(options, await compilePlan(plan, "forward", "test", "child"));
else await rebuildDeferred(options, { wanted: async () => true, wait: true });
await options.store.pool.end();
