import { userInfo } from "node:os";
import { CrossfadeError } from "../config/errors.ts";
import {
  type Command as StoredCommand,
  enqueueCommand,
  waitForCommand,
  withdrawCommand,
} from "../store/control/commands.ts";
import type { ControlStore } from "../store/control/open.ts";
import { Controller, type ControllerOptions } from "../switchover/controller.ts";
import { someoneLeads } from "../switchover/lead.ts";
import { parseArgs, type RequestKind } from "../switchover/requests.ts";
import { openRealEngine } from "../switchover/wiring.ts";
import { withListener } from "./control-client.ts";
import type { Context } from "./command.ts";

/** How often to look whether the controller that was to do it is still there. */
const LOOK_MS = 2_000;

/** A command that did not succeed, with what the controller said of it. */
class RequestFailed extends CrossfadeError {
  readonly gates: readonly unknown[] | undefined;

  constructor(error: NonNullable<StoredCommand["error"]>) {
    super(error.code, error.message, error.hint === undefined ? {} : { hint: error.hint });
    this.gates = error.gates;
  }
}

/**
 * Asks the controller that leads to do something and waits for its result. Where none leads, this process runs one until
 * the command is done: one code path for all.
 */
export async function request(
  context: Context,
  kind: RequestKind,
  args: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  parseArgs(kind, args);
  return withListener(context, async (store, listener) => {
    const id = await enqueueCommand(store, { kind, args, by: `cli:${userName()}` });
    const { plan, log } = context;
    const watch = watchLead({ plan, store, listener, log, only: id });
    try {
      return resultOf(await waitForCommand(store, listener, id, context.signal));
    } catch (error) {
      if (!context.signal.aborted) throw error;
      throw await interrupted(store, id, kind);
    } finally {
      await watch.stop();
    }
  });
}

function resultOf({ result, error }: StoredCommand): unknown {
  if (error !== undefined) throw new RequestFailed(error);
  return result;
}

async function interrupted(
  store: ControlStore,
  id: number,
  kind: RequestKind,
): Promise<CrossfadeError> {
  const withdrawn = await withdrawCommand(store, id);
  const message = withdrawn
    ? `${kind} was taken back before it began`
    : `stopped waiting; the controller goes on with ${kind}`;
  return new CrossfadeError("FAILED", message, {
    hint: "`crossfade status` shows where the migration stands.",
  });
}

/** Runs a controller here from the moment that nobody leads; before and while somebody does, it only looks. */
function watchLead(parts: Omit<ControllerOptions, "engine">): { stop(): Promise<void> } {
  let controller: Controller | undefined;
  let looking: Promise<void> = Promise.resolve();
  const look = async () => {
    if (controller !== undefined || (await someoneLeads(parts.store))) return;
    parts.log.debug({}, "no controller leads: running one here");
    controller = new Controller({ ...parts, engine: openRealEngine(parts) });
    controller.start();
  };
  const lookAgain = () => {
    // The store may be away for a moment; waiting for the command reports it if it stays away.
    looking = looking
      .then(look)
      .catch((error: unknown) => parts.log.debug({ err: error }, "cannot see who leads"));
  };
  lookAgain();
  const timer = setInterval(lookAgain, LOOK_MS);
  return {
    async stop() {
      clearInterval(timer);
      await looking;
      await controller?.stop();
    },
  };
}

/** Who runs this command, for the timeline. */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown");
  }
}
