import { Option } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import type { ListenAddress } from "../config/plan-types.ts";
import { parseTokens } from "../config/operator-tokens.ts";
import type { Command, Context } from "./command.ts";
import { type Role, ROLES } from "./role.ts";
import { assertFree, formatListen } from "./ports.ts";
import { prepareUp } from "./prepare.ts";
import { argsOf, processesOf } from "./proxy-processes.ts";
import { aborted } from "./signals.ts";
import { startAll, type Started } from "./start-roles.ts";
import { Supervisor } from "./supervisor.ts";

interface UpOptions {
  readonly without?: readonly Role[];
}

export const up: Command<UpOptions> = {
  name: "up",
  summary: "runs all roles on this machine: sidecar, mirror, backfill, controller",
  details: `Checks the plan against both databases, then runs every role as a process of its own and starts again what dies.
Nothing is installed and no traffic moves until \`crossfade advance\`: in the phase off, the sidecar passes everything
to the old app. If the check finds a problem, nothing is left behind.

Runs until SIGTERM or Ctrl-C: requests in flight are answered, positions saved, then it exits 0. A second signal, or 15
seconds without an end, exits 1; starting it again goes on where it stopped.`,
  examples: [
    "crossfade up",
    "crossfade up --plan shop.yaml --log-level warn",
    "crossfade up --without proxy   # sidecars run elsewhere",
  ],
  options: [new Option("--without <role...>", "roles that run on other machines").choices(ROLES)],
  logLevel: "info",
  async run(context, options) {
    const roles = ROLES.filter((role) => options.without?.includes(role) !== true);
    if (roles.length === 0) throw new CrossfadeError("USAGE", "--without leaves no role to run");
    for (const sentence of context.plan.notActing) context.output.note(`note: ${sentence}`);
    await checkAddresses(context, roles);
    await prepareUp(context);
    await supervise(context, roles);
    return undefined;
  },
};

/** What the roles would only find once something is installed. */
async function checkAddresses({ plan }: Context, roles: readonly Role[]): Promise<void> {
  if (roles.includes("proxy")) await assertFree("proxy.listen", plan.proxy.listen);
  if (!roles.includes("control")) return;
  await assertFree("operate.listen", plan.operate.listen);
  parseTokens(plan.operate.tokens);
}

async function supervise(context: Context, roles: readonly Role[]): Promise<void> {
  const { log, signal, output } = context;
  const how = { planFile: context.plan.file, logLevel: context.logLevel };
  const supervisor = new Supervisor({ log, argsFor: (name) => argsOf(name, how) });
  const names = roles.flatMap((role) => processesOf(role, context.plan));
  // Whatever ends this process, no child stays behind.
  process.once("exit", () => supervisor.kill());
  try {
    const started = await Promise.race([startAll(supervisor, names), aborted(signal)]);
    if (started !== undefined) output.result(upResult(context, started, supervisor.pids));
    await aborted(signal);
  } finally {
    await supervisor.stop();
  }
  log.info({}, "stopped");
}

function upResult({ plan }: Context, started: Started, pids: Readonly<Record<string, number>>) {
  const addressOf = (role: Role, planned: ListenAddress) =>
    `http://${started.find((entry) => entry.role === role)?.listen ?? formatListen(planned)}`;
  const proxy = addressOf("proxy", plan.proxy.listen);
  const operate = addressOf("control", plan.operate.listen);
  const lines = [
    `${plan.name} is up`,
    `  sidecar   ${proxy}   (send the service's traffic here)`,
    `  console   ${operate}`,
    `  old app   ${plan.old.app}`,
    `  new app   ${plan.new.app}`,
    `  roles     ${started.map(({ name }) => name).join(", ")}`,
    `  next      crossfade status, then crossfade advance`,
  ];
  const roles = started.map(({ name, role, listen }) => ({
    role,
    listen: listen ?? null,
    pid: pids[name] ?? null,
  }));
  return {
    json: { plan: plan.name, proxy, operate, roles, not_acting: plan.notActing },
    text: lines.join("\n"),
  };
}
