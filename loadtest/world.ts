import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { stringify } from "yaml";
import { loadPlan } from "../config/load.ts";
import type { Plan } from "../config/plan-types.ts";
import {
  type EmbeddedServer,
  startEmbeddedPostgres,
} from "../examples/support/embedded-postgres.ts";

/** Two servers and a plan between them, for measuring. */
export interface BenchWorld {
  readonly old: EmbeddedServer;
  readonly new: EmbeddedServer;
  readonly oldUrl: string;
  readonly newUrl: string;
  writePlan(content: object): { plan: Plan; file: string };
  stop(): Promise<void>;
}

export async function startBenchWorld(
  start: () => Promise<EmbeddedServer> = startEmbeddedPostgres,
): Promise<BenchWorld> {
  const [old, next] = await Promise.all([start(), start()]);
  const [oldUrl, newUrl] = await Promise.all([
    old.createDatabase("bench"),
    next.createDatabase("bench"),
  ]);
  const folder = mkdtempSync(join(tmpdir(), "crossfade-bench-"));
  return {
    old,
    new: next,
    oldUrl,
    newUrl,
    writePlan(content) {
      const file = join(folder, "crossfade.yaml");
      const sides = {
        old: { database: oldUrl, app: "http://127.0.0.1:1" },
        new: { database: newUrl, app: "http://127.0.0.1:1" },
      };
      writeFileSync(file, stringify({ name: "bench", ...sides, ...content }));
      return { plan: loadPlan(file), file };
    },
    async stop() {
      await Promise.all([old.stop(), next.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function execute(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}
