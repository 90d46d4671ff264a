import { execFileSync, spawn } from "node:child_process";
import { chownSync, cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { arch, platform, tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { freePort } from "../../examples/support/free-port.ts";
import type { EmbeddedServer } from "../../examples/support/embedded-postgres.ts";
import { withClient } from "./databases.ts";

/** A streaming standby of an embedded server, made of an online copy of its files, until the test ends. */
export async function startStandby(
  primary: EmbeddedServer,
  name: string,
): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), "crossfade-standby-"));
  await withClient(primary.url("postgres"), async (client) => {
    const { rows } = await client.query<{ data_directory: string }>("show data_directory");
    await client.query("select pg_backup_start('standby', true)");
    cpSync(rows[0]!.data_directory, directory, { recursive: true });
    const stopped = await client.query<{ labelfile: string }>(
      "select labelfile from pg_backup_stop(false)",
    );
    writeFileSync(join(directory, "backup_label"), stopped.rows[0]!.labelfile);
  });
  rmSync(join(directory, "postmaster.pid"), { force: true });
  writeFileSync(join(directory, "standby.signal"), "");
  const port = await freePort();
  const settings = [
    `port=${port}`,
    `primary_conninfo=host=127.0.0.1 port=${primary.port} user=postgres password=postgres application_name=${name}`,
    "wal_receiver_status_interval=1s",
    "max_connections=200",
    "max_wal_senders=100",
    "max_prepared_transactions=5",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
  ];
  const user = process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : {};
  if (user.uid !== undefined) giveTo(directory, user.uid, user.gid);
  const server = spawn(
    postgres(),
    ["-D", directory, ...settings.flatMap((setting) => ["-c", setting])],
    { ...user, cwd: directory, stdio: "ignore" },
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  const stop = async () => {
    server.kill("SIGQUIT");
    await ended;
  };
  onTestFinished(async () => {
    await stop();
    rmSync(directory, { recursive: true, force: true });
  });
  return { url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`, stop };
}

function postgres(): string {
  const own = import.meta.resolve(`@embedded-postgres/${platform()}-${arch()}`);
  return fileURLToPath(new URL("../native/bin/postgres", own));
}

function giveTo(path: string, uid: number, gid: number): void {
  chownSync(path, uid, gid);
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inside = join(path, entry.name);
    if (entry.isDirectory()) giveTo(inside, uid, gid);
    else chownSync(inside, uid, gid);
  }
}

function idOf(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
}
