import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { createDatabasePair, withClient } from "../support/databases.ts";

const MODULE = resolve(import.meta.dirname, "../../examples/support/embedded-postgres.ts");

test("two real servers answer", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl]) {
    const { rows } = await withClient(url, (client) =>
      client.query("select current_setting('server_version_num')::int as v"),
    );
    expect(rows[0].v).toBeGreaterThanOrEqual(150000);
  }
});

test("whoever uses the servers keeps its exit code: a failed run stays failed", () => {
  const script = `await import(${JSON.stringify(MODULE)}); process.exitCode = 7;`;
  const { status } = spawnSync(process.execPath, ["--input-type=module", "-e", script]);
  expect(status).toBe(7);
});
