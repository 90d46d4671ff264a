import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { describeDatabase, redact } from "../../config/describe.ts";
import { childEnvironment } from "../../config/environment.ts";
import { CrossfadeError } from "../../config/errors.ts";

export interface ToolOptions {
  /** Folder of pg_dump and pg_restore; undefined: found on PATH. */
  readonly tools: string | undefined;
  readonly signal: AbortSignal;
}

/** A Postgres client tool as a child process. */
export interface Tool {
  readonly child: ChildProcess;
  /** Rejects with what the tool wrote on stderr if it fails. */
  readonly ended: Promise<void>;
}

/** Starts `pg_dump` or `pg_restore`. The password travels in the environment, never on the command line that `ps` shows. */
export function startTool(
  name: "pg_dump" | "pg_restore",
  args: readonly string[],
  url: string | undefined,
  options: ToolOptions,
): Tool {
  const command = options.tools === undefined ? name : join(options.tools, name);
  const login = url === undefined ? undefined : splitPassword(url);
  const child = spawn(command, [...args, ...(login === undefined ? [] : ["--dbname", login.url])], {
    env: childEnvironment(login?.password === undefined ? {} : { PGPASSWORD: login.password }),
    stdio: ["pipe", "pipe", "pipe"],
    signal: options.signal,
  });
  let said = "";
  child.stderr.on("data", (data: Buffer) => {
    said = (said + data.toString()).slice(-4_000);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", (error) => {
      const missing = "code" in error && error.code === "ENOENT";
      reject(
        missing
          ? new CrossfadeError("USAGE", `${command} is not installed here`, {
              hint: "Install the Postgres client tools of at least the server's version, or name their folder as backup.tools in the plan.",
            })
          : error,
      );
    });
    child.once("close", (code) => {
      if (code === 0) return resolve();
      const where = url === undefined ? "" : ` (${describeDatabase(url)})`;
      const mismatch = /server version mismatch/.test(said);
      reject(
        new CrossfadeError(
          "FAILED",
          `${name}${where}: ${redact(said.trim()) || `ended with ${code}`}`,
          mismatch
            ? {
                hint: "Name the folder of client tools of the server's version as backup.tools in the plan.",
              }
            : {},
        ),
      );
    });
  });
  return { child, ended };
}

function splitPassword(url: string): {
  readonly url: string;
  readonly password: string | undefined;
} {
  const parsed = new URL(url);
  const password = parsed.password === "" ? undefined : decodeURIComponent(parsed.password);
  parsed.password = "";
  return { url: parsed.href, password };
}
