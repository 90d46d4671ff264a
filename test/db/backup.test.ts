import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decrypt, encrypt } from "../../store/backup/encryption.ts";
import { runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

describe("encryption", () => {
  const seal = (plain: Buffer, key: string) => buffer(Readable.from([plain]).pipe(encrypt(key)));
  const open = async (sealed: Buffer, key: string, cut: number) => {
    const pieces: Buffer[] = [];
    for (let at = 0; at < sealed.length; at += cut) pieces.push(sealed.subarray(at, at + cut));
    const stream = decrypt(key);
    const failed = new Promise<never>((_, reject) => stream.once("error", reject));
    return Promise.race([buffer(Readable.from(pieces).pipe(stream)), failed]);
  };

  test.each([0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])(
    "%i bytes come back",
    async (size) => {
      const plain = randomBytes(size);
      const sealed = await seal(plain, "key");
      expect((await open(sealed, "key", 65_536)).equals(plain)).toBe(true);
    },
  );

  test("a changed byte, a cut, a lost frame and another key are noticed", async () => {
    const plain = randomBytes(2_500_000);
    const sealed = await seal(plain, "key");
    await expect(open(sealed, "other", 65_536)).rejects.toThrow("cannot be decrypted");
    const frame = 4 + (1 << 20) + 16;
    const header = sealed.length - (4 + 16) * 3 - plain.length;
    const withoutFrame = Buffer.concat([
      sealed.subarray(0, header),
      sealed.subarray(header + frame),
    ]);
    await expect(open(withoutFrame, "key", 65_536)).rejects.toThrow("cannot be decrypted");
    const whole = sealed.subarray(0, header + 2 * frame);
    await expect(open(whole, "key", 65_536)).rejects.toThrow("cannot be decrypted");
    await fc.assert(
      fc.asyncProperty(fc.nat(sealed.length - 1), fc.boolean(), async (at, cut) => {
        const changed = Buffer.from(sealed);
        changed[at] = (changed[at] ?? 0) ^ 1;
        await expect(
          open(cut ? sealed.subarray(0, at) : changed, "key", 1_000_003),
        ).rejects.toThrow();
      }),
      { numRuns: 12 },
    );
  });
});

/** A dump needs a pg_dump of at least the server's version. */
async function toolsFit(url: string): Promise<boolean> {
  const { rows } = await withClient(url, (client) =>
    client.query<{ v: string }>("select current_setting('server_version_num') as v"),
  );
  try {
    const version = execFileSync("pg_dump", ["--version"], { encoding: "utf8" });
    return Number(/ (\d+)/.exec(version)?.[1]) * 10_000 + 9_999 >= Number(rows[0]?.v);
  } catch {
    return false;
  }
}

interface Made {
  readonly backup: { readonly id: string; readonly dumps: readonly { readonly file: string }[] };
}

describe.each([{ key: "" }, { key: "a long key" }])("backups, key '$key'", ({ key }) => {
  test("create, list, verify, restore, prune", async ({ skip }) => {
    const { oldUrl, newUrl } = await createDatabasePair();
    if (!(await toolsFit(oldUrl))) skip("no pg_dump of the server's version here");
    for (const url of [oldUrl, newUrl])
      await withClient(url, (client) =>
        client.query(
          "create table t (id int primary key, b bytea); insert into t select i, sha256(i::text::bytea) from generate_series(1, 500) i",
        ),
      );
    const plan = writePlanFile({
      name: "backed-up",
      old: { database: oldUrl, app: "http://127.0.0.1:1" },
      new: { database: newUrl, app: "http://127.0.0.1:1" },
      forward: "identity",
      backup: { dir: "kept", keep: 1, key },
    });
    const dir = join(dirname(plan), "kept");
    expect((await runCli(plan, "maintenance", "off")).exit).toBe(0);
    const { exit, document, stdout } = await runCli<Made>(plan, "backup", "create");
    expect(exit, stdout).toBe(0);
    expect(document.backup.dumps).toHaveLength(2);
    const { id } = document.backup;
    const bytes = readFileSync(join(dir, id, document.backup.dumps[0]?.file ?? ""));
    expect(bytes.subarray(0, 5).toString() === "PGDMP").toBe(key === "");
    expect(await runCli(plan, "backup", "verify")).toMatchObject({
      exit: 0,
      document: { ok: true },
    });

    await withClient(oldUrl, (client) =>
      client.query("delete from t where id > 100; update t set b = null"),
    );
    expect(await runCli(plan, "backup", "restore", "--side", "old")).toMatchObject({
      exit: 3,
      document: { error: { hint: expect.stringContaining("--yes") } },
    });
    const restored = await runCli(plan, "backup", "restore", "--side", "old", "--yes");
    expect(restored.exit, restored.stdout).toBe(0);
    const { rows } = await withClient(oldUrl, (client) =>
      client.query(
        "select count(*)::int as n, count(*) filter (where b = sha256(id::text::bytea))::int as right from t",
      ),
    );
    expect(rows).toEqual([{ n: 500, right: 500 }]);
    // The timeline came back with the database; that somebody did so stands in it all the same.
    const { rows: events } = await withClient(oldUrl, (client) =>
      client.query(
        "select detail->>'backup' as id from crossfade.event where kind = 'backup-restore'",
      ),
    );
    expect(events).toEqual([{ id }]);

    // A file that was cut off, and one that was changed at the same length.
    const file = join(dir, id, document.backup.dumps[1]?.file ?? "");
    const whole = readFileSync(file);
    truncateSync(file, whole.length - 7);
    expect(await runCli(plan, "backup", "verify")).toMatchObject({
      exit: 1,
      document: { ok: false },
    });
    const changed = Buffer.from(whole);
    changed[whole.length - 9] = (changed[whole.length - 9] ?? 0) ^ 1;
    writeFileSync(file, changed);
    expect(await runCli(plan, "backup", "restore", "--side", "new", "--yes")).toMatchObject({
      exit: 1,
      document: { error: { message: expect.stringContaining("checksum") } },
    });

    await runCli(plan, "backup", "create", "--side", "new");
    expect(await runCli(plan, "backup", "list")).toMatchObject({
      document: { backups: [{ id }, {}] },
    });
    expect(await runCli(plan, "backup", "prune")).toMatchObject({
      document: { removed: [id], kept: 1 },
    });
    expect(readdirSync(dir)).toHaveLength(1);
  });

  test("a backup that fails leaves nothing, and a running migration is not restored under", async ({
    skip,
  }) => {
    const { oldUrl, newUrl } = await createDatabasePair();
    if (!(await toolsFit(oldUrl))) skip("no pg_dump of the server's version here");
    for (const url of [oldUrl, newUrl])
      await withClient(url, (client) => client.query("create table t (id int primary key)"));
    const content = {
      name: "backed-up",
      old: { database: oldUrl, app: "http://127.0.0.1:1" },
      new: { database: newUrl, app: "http://127.0.0.1:1" },
      forward: "identity",
      backup: { key },
    };
    const broken = writePlanFile({
      ...content,
      new: { database: "postgres://x:y@127.0.0.1:1/z", app: "http://127.0.0.1:1" },
    });
    const failed = await runCli<{ error: { message: string } }>(broken, "backup", "create");
    expect(failed).toMatchObject({
      exit: 1,
      document: { error: { message: expect.stringContaining("pg_dump (127.0.0.1:1/z)") } },
    });
    expect(readdirSync(join(dirname(broken), "backups"))).toEqual([]);

    const refused = await runCli(
      writePlanFile({ ...content, backup: { key, tools: "/nowhere" } }),
      "advance",
    );
    expect(refused).toMatchObject({
      exit: 3,
      document: {
        error: {
          message: expect.stringMatching(/backup before dual-write failed: .*not installed/),
        },
      },
    });
    const plan = writePlanFile(content);
    expect((await runCli(plan, "advance")).exit).toBe(0);
    expect(await runCli(plan, "backup", "list")).toMatchObject({
      document: {
        backups: [{ why: "before dual-write", dumps: [{ side: "old" }, { side: "new" }] }],
      },
    });
    expect(await runCli(plan, "backup", "restore", "--side", "old", "--yes")).toMatchObject({
      exit: 3,
      document: { error: { message: expect.stringContaining("dual-write") } },
    });
  });
});
