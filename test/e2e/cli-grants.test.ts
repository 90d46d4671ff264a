import { randomBytes } from "node:crypto";
import { expect, onTestFinished, test } from "vitest";
import type { WalkResult } from "../../switchover/walk.ts";
import { CliProcess, runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

interface Granted {
  readonly grants: readonly { readonly sql: string; readonly why: string }[];
}
interface Grants {
  readonly old: Granted;
  readonly new: Granted;
}

/** An app whose tables belong to a role of its own, on both sides; nobody but superusers may do anything yet. */
async function ownedTables(owner: string) {
  const pair = await createDatabasePair();
  for (const url of [pair.oldUrl, pair.newUrl])
    await withClient(url, (client) =>
      client.query(`create role ${owner}; create table users (id int primary key, name text not null);
        alter table users owner to ${owner}; revoke create, temporary on database ${new URL(url).pathname.slice(1)} from public`),
    );
  await withClient(pair.oldUrl, (client) =>
    client.query("insert into users select i, 'user ' || i from generate_series(1, 100) i"),
  );
  await withClient(pair.newUrl, (client) =>
    client.query("create index users_name on users (name)"),
  );
  return pair;
}

function loginAs(url: string, user: string, password: string): string {
  const login = new URL(url);
  login.username = user;
  login.password = password;
  return login.href;
}

test("without grants a login is refused; what grants prints is enough to mirror, copy, verify and remove it all", async () => {
  const tag = randomBytes(4).toString("hex");
  const [owner, role] = [`owner_${tag}`, `crossfade_${tag}`];
  const pair = await ownedTables(owner);
  const plan = (urls: { oldUrl: string; newUrl: string }) =>
    writePlanFile({
      name: "grants",
      old: { database: urls.oldUrl, app: "http://127.0.0.1:1" },
      new: { database: urls.newUrl, app: "http://127.0.0.1:1" },
      forward: { users: { from: "users" } },
      reverse: { users: { from: "users" } },
      backfill: { defer: ["indexes"] },
      proxy: { listen: "127.0.0.1:0" },
      operate: { listen: "127.0.0.1:0" },
    });
  const asSuperuser = plan(pair);
  const asRole = plan({
    oldUrl: loginAs(pair.oldUrl, role, "enough"),
    newUrl: loginAs(pair.newUrl, role, "enough"),
  });
  for (const url of [pair.oldUrl, pair.newUrl])
    await withClient(url, (client) => client.query(`create role ${role} login password 'enough'`));
  const refused = await runCli<{ error: { message: string } }>(asRole, "check");
  expect(refused.exit).toBe(2);

  const { document } = await runCli<Grants>(asSuperuser, "grants", "--role", role);
  expect(document.old.grants.map(({ sql }) => sql)).toContain(`grant "${owner}" to "${role}"`);
  for (const [url, { grants }] of [
    [pair.oldUrl, document.old],
    [pair.newUrl, document.new],
  ] as const)
    await withClient(url, async (client) => {
      for (const { sql } of grants) await client.query(sql);
    });

  const up = new CliProcess(["up", "--plan", asRole, "--json"]);
  onTestFinished(() => void up.child.kill("SIGTERM"));
  await expect.poll(() => up.stdout, { timeout: 60_000 }).toContain("}\n");
  const advanced = await runCli<WalkResult>(asRole, "advance", "--to", "verify", "--wait");
  expect(advanced, advanced.stdout).toMatchObject({ exit: 0, document: { phase: "verify" } });
  await withClient(pair.newUrl, async (client) => {
    const { rows } = await client.query("select count(*)::int as n from users");
    expect(rows).toEqual([{ n: 100 }]);
    // It was dropped for the copy, and built again by a role that is not the owner.
    const index = await client.query(
      "select indisvalid from pg_index where indexrelid = 'users_name'::regclass",
    );
    expect(index.rows).toEqual([{ indisvalid: true }]);
  });
  const { rows: deferred } = await withClient(pair.oldUrl, (client) =>
    client.query("select name, state from crossfade.deferred_object"),
  );
  expect(deferred).toEqual([{ name: "users_name", state: "built" }]);
  const back = await runCli(asRole, "rollback", "--to", "off");
  expect(back.exit, back.stdout).toBe(0);
  up.child.kill("SIGTERM");
  expect(await up.ended).toBe(0);
  const cleaned = await runCli(asRole, "clean", "--yes");
  expect(cleaned, cleaned.stdout).toMatchObject({
    exit: 0,
    document: { cleaned: true, unproven: [] },
  });
  for (const url of [pair.oldUrl, pair.newUrl]) {
    const { rows } = await withClient(url, (client) =>
      client.query(
        "select nspname from pg_namespace where nspname like 'crossfade%' union all select tgname from pg_trigger where tgname like 'crossfade%'",
      ),
    );
    expect(rows).toEqual([]);
  }
});
