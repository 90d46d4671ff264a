import { execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePort } from "../../examples/support/free-port.ts";

/**
 * A throw-away server of an installed Postgres, e.g. Debian's 15: the same tests on another version. `binaries` is the
 * folder of `initdb` and `postgres`. As root, the server runs as the system's `postgres` user.
 */
export async function startInstalledPostgres(
  binaries: string,
  more: Readonly<Record<string, string>> = {},
): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), "crossfade-installed-"));
  const user = process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : {};
  if (user.uid !== undefined) chownSync(directory, user.uid, user.gid);
  const options = { ...user, cwd: directory };
  execFileSync(
    join(binaries, "initdb"),
    [
      "-D",
      directory,
      "-U",
      "postgres",
      "-A",
      "trust",
      "-E",
      "UTF8",
      "--locale=C.UTF-8",
      "--no-sync",
    ],
    { ...options, stdio: "ignore" },
  );
  const settings = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=256MB",
    "wal_level=logical",
    "max_replication_slots=100",
    "max_wal_senders=100",
    ...Object.entries(more).map(([name, value]) => `${name}=${value}`),
  ];
  const server = spawn(
    join(binaries, "postgres"),
    ["-D", directory, "-p", String(port), ...settings.flatMap((setting) => ["-c", setting])],
    { ...options, stdio: "ignore" },
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  await untilReady(port, ended);
  return {
    port,
    async stop() {
      // Its files are thrown away.
      server.kill("SIGQUIT");
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function idOf(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
}

async function untilReady(port: number, ended: Promise<void>): Promise<void> {
  const gone = ended.then(() => "ended" as const);
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const client = new pg.Client({
      connectionString: `postgres://postgres@127.0.0.1:${port}/postgres`,
    });
    const answer = await Promise.race([
      client.connect().then(
        () => "ready" as const,
        () => "not yet" as const,
      ),
      gone,
    ]);
    if (answer === "ready") return client.end();
    if (answer === "ended") break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the installed Postgres did not start on port ${port}`);
}
