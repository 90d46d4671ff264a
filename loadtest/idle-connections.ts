import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** Besides the idle connections a process needs some files: its libraries, databases, the load. */
const OTHER_FILES = 300;
const AT_ONCE = 200;

/** How many idle connections this machine's limit of open files allows; at most `wanted`. */
export function allowedConnections(wanted: number): number {
  const { stdout } = spawnSync("sh", ["-c", "ulimit -Hn"], { encoding: "utf8" });
  const limit = stdout.trim() === "unlimited" ? Number.POSITIVE_INFINITY : Number(stdout);
  return Math.max(0, Math.min(wanted, limit - OTHER_FILES));
}

export interface IdleConnections {
  /** How many the other side has not closed. */
  open(): number;
  close(): void;
}

/** Opens connections that have each had one answer, and stay. */
export async function openIdle(url: string, count: number): Promise<IdleConnections> {
  const sockets: Socket[] = [];
  const close = () => sockets.forEach((socket) => socket.destroy());
  try {
    while (sockets.length < count) {
      const batch = Array.from({ length: Math.min(AT_ONCE, count - sockets.length) }, () =>
        askOnce(new URL(url)),
      );
      sockets.push(...(await Promise.all(batch)));
    }
  } catch (error) {
    close();
    throw error;
  }
  const open = () => sockets.filter(({ readyState }) => readyState === "open").length;
  return { open, close };
}

async function askOnce({ hostname, port, host }: URL): Promise<Socket> {
  const socket = connect(Number(port), hostname);
  await once(socket, "connect");
  socket.write(`GET / HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
  await once(socket, "data");
  // What comes later is read away; a connection that the other side closes shows when it is counted.
  socket.on("error", () => undefined).resume();
  return socket;
}
