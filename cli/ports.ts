import { createServer } from "node:net";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { ListenAddress } from "../config/plan-types.ts";

export function formatListen({ host, port }: ListenAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Throws PORT_IN_USE if nothing can listen on `address` now. `path` is where the plan names it. */
export async function assertFree(path: string, address: ListenAddress): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: address.host, port: address.port, exclusive: true }, resolve);
    });
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
    throw new CrossfadeError(
      "PORT_IN_USE",
      `${path}: ${taken ? `another process listens on ${formatListen(address)}` : `cannot listen on ${formatListen(address)}: ${messageOf(error)}`}`,
      {
        hint: `Stop that process, or name another address in the plan under ${path}.`,
        cause: error,
      },
    );
  }
  await new Promise((resolve) => server.close(resolve));
}
