import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { resetChunks } from "../../store/control/chunk-ledger.ts";
import {
  CHUNKS,
  expectEqual,
  openBackfillWorld,
  POLL,
  ROWS,
  slowDown,
} from "../support/backfill-world.ts";
import { withClient } from "../support/databases.ts";

test("the server crashes and recovers in the middle of the copy, with both databases and the control store: all rows arrive", async () => {
  const server = await startEmbeddedPostgres();
  onTestFinished(() => server.stop());
  const databases = {
    oldUrl: await server.createDatabase("old"),
    newUrl: await server.createDatabase("new"),
  };
  const { start, done, newUrl } = await openBackfillWorld({ databases });
  await slowDown(newUrl, "a", 0.05);
  start();
  let crashes = 0;
  for (let round = 0; round < 3; round += 1) {
    let pid: number | undefined;
    await expect
      .poll(async () => {
        pid = await copying(newUrl).catch(() => undefined);
        const copied = await done("a").catch(() => undefined);
        return pid !== undefined || copied?.done === CHUNKS;
      }, POLL)
      .toBe(true);
    if (pid === undefined) break;
    // A session that dies like this takes the whole server down, which then replays its log.
    if (killed(pid)) crashes += 1;
    else round -= 1;
  }
  expect(crashes).toBeGreaterThan(0);
  for (const table of ["a", "b"]) {
    await expect
      .poll(async () => (await done(table).catch(() => undefined))?.done, POLL)
      .toBe(CHUNKS);
    // The other table may be whole before the last crash is over.
    await vi.waitFor(() => expectEqual(databases, table), { timeout: 20_000, interval: 200 });
  }
});

/** False: it had ended by then. */
function killed(pid: number): boolean {
  try {
    return process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    return false;
  }
}

/** The process id of a session that is inserting rows. */
async function copying(url: string): Promise<number | undefined> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ pid: number }>(
      "select pid from pg_stat_activity where datname = current_database() and application_name like 'crossfade backfill%' and state = 'active' and pid <> pg_backend_pid() limit 1",
    );
    return rows[0]?.pid;
  });
}

test("a constraint that comes while rows are copied: those it refuses stand in quarantine, all others arrive", async () => {
  const { oldUrl, newUrl, start, done, count } = await openBackfillWorld();
  await withClient(oldUrl, (client) =>
    client.query("update a set note = 'poison' where id in (1990, 1999)"),
  );
  await slowDown(newUrl, "a", 0.1);
  start();
  await expect.poll(async () => (await done("a"))?.done ?? 0, POLL).toBeGreaterThan(0);
  await withClient(newUrl, (client) =>
    client.query("alter table a add constraint clean check (note <> 'poison')"),
  );
  expect((await done("a"))?.done).toBeLessThan(CHUNKS);
  for (const table of ["a", "b"])
    await expect.poll(async () => (await done(table))?.done, POLL).toBe(CHUNKS);
  expect(await count("a")).toBe(ROWS - 2);
  const { rows } = await withClient(newUrl, (client) =>
    client.query("select key[1] as id, sqlstate from crossfade.quarantine order by 1"),
  );
  expect(rows).toEqual([
    { id: "1990", sqlstate: "23514" },
    { id: "1999", sqlstate: "23514" },
  ]);
});

test("the disk of a table fills: its chunks fail and say so, the other table arrives, resume finishes once there is room", async ({
  skip,
}) => {
  const folder = smallDisk();
  if (folder === undefined)
    return skip("a small disk needs root, mount, and a server that runs as another user");
  const note = "(select string_agg(md5(n::text || i), '') from generate_series(1, 40) i)";
  const { oldUrl, newUrl, store, start, done } = await openBackfillWorld({ note });
  // For statements outside of a transaction block, one by one.
  for (const sql of [
    `create tablespace ${folder.name} location '${folder.path}'`,
    `alter table a set tablespace ${folder.name}`,
  ])
    await withClient(newUrl, (client) => client.query(sql));
  onTestFinished(async () => {
    await withClient(newUrl, (client) => client.query("drop table a"));
    await withClient(newUrl, (client) => client.query(`drop tablespace ${folder.name}`));
    folder.remove();
  });
  start();
  await expect.poll(async () => (await done("a"))?.error, POLL).toMatch(/No space left on device/);
  await expect.poll(async () => (await done("b"))?.done, POLL).toBe(CHUNKS);
  folder.grow();
  await expect
    .poll(async () => {
      await resetChunks(store, "forward", { onlyFailed: true });
      return (await done("a"))?.done;
    }, POLL)
    .toBe(CHUNKS);
  for (const table of ["a", "b"]) await expectEqual({ oldUrl, newUrl }, table);
});

/** A disk of one megabyte that can grow, if this process may make one. */
function smallDisk():
  | { readonly name: string; readonly path: string; grow(): void; remove(): void }
  | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const path = mkdtempSync(join(tmpdir(), "crossfade-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1M", "tmpfs", path], { stdio: "ignore" });
    execFileSync("chown", ["postgres", path], { stdio: "ignore" });
  } catch {
    rmSync(path, { recursive: true, force: true });
    return undefined;
  }
  return {
    name: `disk_${randomBytes(4).toString("hex")}`,
    path,
    grow: () => execFileSync("mount", ["-o", "remount,size=64M", path], { stdio: "ignore" }),
    remove() {
      execFileSync("umount", ["-l", path], { stdio: "ignore" });
      rmSync(path, { recursive: true, force: true });
    },
  };
}
