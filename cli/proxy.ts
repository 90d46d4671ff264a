import { InvalidArgumentError, Option } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import type { Command, Context } from "./command.ts";
import { assertFree, formatListen } from "./ports.ts";
import { argsOf, processesOf } from "./proxy-processes.ts";
import { announce } from "./role.ts";
import { aborted } from "./signals.ts";
import { Supervisor } from "./supervisor.ts";

interface ProxyOptions {
  readonly process?: number;
}

export const proxy: Command<ProxyOptions> = {
  name: "proxy",
  summary: "runs a sidecar: the service's traffic goes through it",
  details: `Listens on proxy.listen and passes every request to the old or the new app, as phase and authority say. It needs no database to
start: without the control store it goes on with the last state it knew. With proxy.processes above 1 it starts that many
processes on the address and starts again what dies; each is a sidecar of its own in crossfade status.

Runs until SIGTERM or Ctrl-C, then answers what is in flight and exits 0.`,
  examples: [
    "crossfade proxy",
    "crossfade proxy --plan /etc/crossfade/shop.yaml --log-level debug",
    "crossfade proxy --process 2   # this one only, where something else starts each of proxy.processes",
  ],
  options: [
    new Option("--process <place>", "run only this one of proxy.processes, from 1").argParser(
      placeOf,
    ),
  ],
  logLevel: "info",
  async run(context, { process: place }) {
    const { processes } = context.plan.proxy;
    if (place !== undefined && place > processes) {
      throw new CrossfadeError(
        "USAGE",
        `--process: found ${place}, expected a place among proxy.processes, which is ${processes}`,
        { hint: "Raise proxy.processes in the plan, or leave --process out." },
      );
    }
    if (processes > 1 && place === undefined) await supervise(context);
    else await runOne(context, processes === 1 ? undefined : place);
    return undefined;
  },
};

async function runOne(context: Context, place: number | undefined): Promise<void> {
  const { plan, log, signal } = context;
  const onReady = (url: string) => announce(context, "proxy", new URL(url).host);
  const { runProxyRole } = await import("../proxy/role.ts");
  await runProxyRole({ plan, log, signal, place, onReady });
}

async function supervise(context: Context): Promise<void> {
  const { plan, log, logLevel, signal } = context;
  // The processes themselves share the address with whoever else does.
  await assertFree("proxy.listen", plan.proxy.listen);
  const supervisor = new Supervisor({
    log,
    argsFor: (name) => argsOf(name, { planFile: plan.file, logLevel }),
  });
  process.once("exit", () => supervisor.kill());
  try {
    const names = processesOf("proxy", plan);
    const all = Promise.all(names.map(async (name) => supervisor.start(name)));
    const started = await Promise.race([all, aborted(signal)]);
    if (started !== undefined) announce(context, "proxy", formatListen(plan.proxy.listen));
    await aborted(signal);
  } finally {
    await supervisor.stop();
  }
}

function placeOf(value: string): number {
  if (/^[1-9]\d?$/.test(value)) return Number(value);
  throw new InvalidArgumentError(`found ${value}, expected a place among proxy.processes, from 1.`);
}
