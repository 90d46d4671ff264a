import type { Context } from "./command.ts";

export interface Looking {
  readonly everyMs: number;
  readonly look: () => Promise<void>;
  /** What is logged when it cannot be seen. */
  readonly unseen: string;
}

/** Looks again and again, never twice at once, while `work` goes on; after it no look is under way. */
export async function whileLooking<T>(
  { log }: Pick<Context, "log">,
  { everyMs, look, unseen }: Looking,
  work: () => Promise<T>,
): Promise<T> {
  let looking = Promise.resolve();
  const timer = setInterval(() => {
    // The store may be away for a moment, or not be installed yet: the command itself reports what is wrong.
    looking = looking.then(look).catch((error: unknown) => log.debug({ err: error }, unseen));
  }, everyMs);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await looking;
  }
}
