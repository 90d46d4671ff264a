import { execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { type EmbeddedServer } from "../../examples/support/embedded-postgres.ts";
import { freePort } from "../../examples/support/free-port.ts";

/**
 * A server of the Postgres whose programs are in `bin`, set up as the embedded one: tools that are older than that can be
 * measured against their own version.
 */
export async function startInstalledPostgres(bin: string): Promise<EmbeddedServer> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), "crossfade-postgres-"));
  // Postgres refuses to run as root.
  const user = process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : {};
  if (user.uid !== undefined) chownSync(directory, user.uid, user.gid);
  const options = { ...user, cwd: directory, stdio: "ignore" } as const;
  execFileSync(
    join(bin, "initdb"),
    ["-D", directory, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"],
    options,
  );
  const settings = [
    `port=${port}`,
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "wal_level=logical",
  ];
  const server = spawn(
    join(bin, "postgres"),
    ["-D", directory, ...settings.flatMap((setting) => ["-c", setting])],
    options,
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  process.once("exit", () => server.kill("SIGQUIT"));
  const url = (database: string) => `postgres://postgres@127.0.0.1:${port}/${database}`;
  const onPostgres = async (sql: string) => {
    const client = new pg.Client({ connectionString: url("postgres") });
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  };
  for (let attempt = 0; ; attempt += 1) {
    try {
      await onPostgres("select 1");
      break;
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return {
    port,
    url,
    async createDatabase(name) {
      await onPostgres(`create database ${pg.escapeIdentifier(name)}`);
      return url(name);
    },
    async stop() {
      server.kill("SIGINT");
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function idOf(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
}
