import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Below what Linux and others give to whoever asks for any port: they would give it to the next one who asks. */
const [LOWEST, HIGHEST] = [10_000, 32_767] as const;

/** A TCP port of loopback that nobody listens on, for a process that opens it in a moment. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(LOWEST, HIGHEST + 1);
    if (await isFree(port)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const free = await new Promise<boolean>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve(false) : reject(error),
    );
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  if (free) await new Promise<void>((resolve) => server.close(() => resolve()));
  return free;
}
