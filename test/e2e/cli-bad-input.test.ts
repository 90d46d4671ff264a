import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { packageVersion } from "../../config/version.ts";
import type { Status } from "../../switchover/status.ts";
import type { WalkResult } from "../../switchover/walk.ts";
import { runCli } from "../support/cli.ts";
import { createDatabasePair, type DatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

interface Failure {
  readonly error: { readonly code: string; readonly message: string; readonly hint?: string };
}

const TABLE = "create table users (id int primary key, name text not null)";
let pair: DatabasePair;

beforeEach(async () => {
  pair = await createDatabasePair();
  for (const url of [pair.oldUrl, pair.newUrl])
    await withClient(url, (client) => client.query(TABLE));
});

/** Whatever was wrong, neither database has anything of ours. */
afterEach(async () => {
  for (const url of [pair.oldUrl, pair.newUrl]) {
    const { rows } = await withClient(url, (client) =>
      client.query(
        "select nspname from pg_namespace where nspname like 'crossfade%' union all select tgname from pg_trigger where tgname like 'crossfade%'",
      ),
    );
    expect(rows).toEqual([]);
  }
});

function plan(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    name: "bad-input",
    old: { database: pair.oldUrl, app: "http://127.0.0.1:1" },
    new: { database: pair.newUrl, app: "http://127.0.0.1:1" },
    forward: { users: { from: "users" } },
    proxy: { listen: "127.0.0.1:0" },
    operate: { listen: "127.0.0.1:0" },
    ...changes,
  };
}

async function upFails(content: unknown): Promise<Failure["error"]> {
  const result = await runCli<Failure>(writePlanFile(content), "up");
  expect(result.exit).toBe(2);
  expect(result.stdout + result.stderr).not.toContain("postgres:postgres@");
  return result.document.error;
}

test("a database that does not answer", async () => {
  const error = await upFails(
    plan({ new: { database: "postgres://u:s3cret@127.0.0.1:1/x", app: "http://127.0.0.1:1" } }),
  );
  expect(error.code).toBe("DATABASE_UNREACHABLE");
  expect(error.message).toMatch(/^new database \(127\.0\.0\.1:1\/x\): .*ECONNREFUSED/);
  expect(error.hint).toBeDefined();
});

test("a database that does not exist", async () => {
  const url = new URL(pair.oldUrl);
  url.pathname = "/nowhere";
  const error = await upFails(plan({ old: { database: url.href, app: "http://127.0.0.1:1" } }));
  expect(error).toMatchObject({
    code: "DATABASE_UNREACHABLE",
    message: expect.stringContaining('database "nowhere" does not exist'),
  });
});

describe("mappings that do not fit", () => {
  test("a table that is not there", async () => {
    const error = await upFails(plan({ forward: { users: { from: "peopel" } } }));
    expect(error.message).toContain(
      "forward.users.from: table peopel not found in schema public of the old database; it has: users",
    );
  });

  test("a table without a key", async () => {
    await withClient(pair.oldUrl, (client) => client.query("create table notes (body text)"));
    const error = await upFails(
      plan({ forward: { users: { from: "notes", set: { id: "1", name: "body" } } } }),
    );
    expect(error.message).toContain("table notes has neither a primary key nor a unique index");
  });

  test("SQL that does not run", async () => {
    const error = await upFails(
      plan({ forward: { users: { from: "users", set: { name: "upper(nmae)" } } } }),
    );
    expect(error.code).toBe("PLAN_INVALID");
    expect(error.message).toContain("forward.users");
    expect(error.message).toContain("nmae");
  });

  test("two quotes too few, with which both columns together would be one that runs", async () => {
    const set = { id: "'1", name: "upper('" };
    const { message } = await upFails(plan({ forward: { users: { from: "users", set } } }));
    expect(message).toContain("forward.users.set.id: does not run on the new database");
    expect(message).toContain("forward.users.set.name: does not run on the new database");
  });

  test("SQL that makes another row each time", async () => {
    const changing = plan({
      forward: {
        users: {
          from: {
            table: "users",
            query: "select *, clock_timestamp() as t from users",
          },
          where: "id > random()",
          set: { name: "gen_random_uuid()::text || lower(name) || now()" },
        },
      },
      reverse: { users: { from: "users" } },
    });
    const { message } = await upFails(changing);
    for (const [path, called] of [
      ["forward.users.from.query", "clock_timestamp(): volatile"],
      ["forward.users.where", "random(): volatile"],
      ["forward.users.set.name", "gen_random_uuid(), now(): another answer each time"],
    ])
      expect(message).toContain(`${path}: calls ${called}`);
    expect(message).not.toContain("reverse");
  });

  test("SQL that asks the clock, the transaction or the session", async () => {
    await withClient(pair.newUrl, (client) =>
      client.query(
        "create table seen (id int primary key, at timestamptz, day date, who text, age interval)",
      ),
    );
    const seen = (mapped: object) => plan({ forward: { seen: { from: "users", ...mapped } } });
    const set = {
      at: "now()",
      day: "current_date",
      who: "current_user",
      age: "age(timestamp '2020-01-01')",
    };
    const { message } = await upFails(
      seen({ where: "localtimestamp(0) > '2020-01-01' or txid_current() > id", set }),
    );
    for (const [path, called] of [
      ["forward.seen.where", "localtimestamp, txid_current()"],
      ["forward.seen.set.at", "now()"],
      ["forward.seen.set.day", "current_date"],
      ["forward.seen.set.age", "age(timestamp without time zone)"],
    ])
      expect(message).toContain(`${path}: calls ${called}: another answer each time`);
    // Two times compared, and whom all sessions of the plan log in as.
    const fixed = {
      at: "null",
      day: "date '2020-01-01'",
      who: set.who,
      age: "age(timestamp '2020-01-02', timestamp '2020-01-01')",
    };
    const result = await runCli(writePlanFile(seen({ set: fixed })), "check");
    expect(result.stdout + result.stderr).not.toContain("calls ");
    expect(result.exit).toBe(0);
  });

  test("problems of both directions at once", async () => {
    const error = await upFails(
      plan({ forward: { users: { from: "a" } }, reverse: { users: { from: "b" } } }),
    );
    expect(error.message).toContain("forward.users.from: table a not found");
    expect(error.message).toContain("reverse.users.from: table b not found");
  });
});

test("a schema that does not exist", async () => {
  const error = await upFails(
    plan({ old: { database: pair.oldUrl, app: "http://127.0.0.1:1", schema: "legacy" } }),
  );
  expect(error.message).toMatch(/schema legacy/);
});

test("the same database under two addresses: the servers say so themselves", async () => {
  const other = new URL(pair.oldUrl);
  other.hostname = "0.0.0.0";
  const error = await upFails(plan({ new: { database: other.href, app: "http://127.0.0.1:1" } }));
  expect(error).toMatchObject({
    code: "PLAN_INVALID",
    message: expect.stringContaining(
      "new: is the same database and schema as old under another address",
    ),
  });
});

test("privileges that are missing", async () => {
  const role = `weak_${Math.random().toString(36).slice(2, 10)}`;
  await withClient(pair.oldUrl, (client) =>
    client.query(`create role ${role} login password 'weak'; grant select on users to ${role}`),
  );
  const url = new URL(pair.oldUrl);
  url.username = role;
  url.password = "weak";
  const error = await upFails(plan({ old: { database: url.href, app: "http://127.0.0.1:1" } }));
  expect(error.code).toBe("DATABASE_UNFIT");
  expect(error.message).toContain(
    `role ${role} may not create the schema crossfade: grant create on database`,
  );
  expect(error.message).toContain(
    `role ${role} does not own table users and cannot put triggers on it: grant postgres to ${role}`,
  );
  await withClient(pair.oldUrl, (client) =>
    client.query(`drop owned by ${role}; drop role ${role}`),
  );
});

test("a port that is taken", async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => void server.close());
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const error = await upFails(plan({ proxy: { listen: `127.0.0.1:${port}` } }));
  expect(error).toMatchObject({
    code: "PORT_IN_USE",
    message: `proxy.listen: another process listens on 127.0.0.1:${port}`,
  });
});

test("a plan with several problems: all of them, with their paths", async () => {
  const result = await runCli<Failure & { error: { issues: unknown[] } }>(
    writePlanFile(plan({ flip: { hold: 500 }, proxi: {} })),
    "check",
  );
  expect(result.exit).toBe(2);
  expect(result.document.error.issues).toHaveLength(2);
});

test("check says that a plan holds, and changes nothing", async () => {
  const result = await runCli(writePlanFile(plan()), "check");
  expect(result).toMatchObject({
    exit: 0,
    document: {
      ok: true,
      old: { tables: ["users"] },
      mappings: [{ direction: "forward", mappings: 1 }],
    },
  });
});

test("advance --dry-run before anything has begun: every step, and nothing is left behind", async () => {
  const file = writePlanFile(plan());
  const { exit, document } = await runCli<WalkResult>(
    file,
    "advance",
    "--to",
    "backfill",
    "--dry-run",
  );
  expect(exit).toBe(0);
  expect(document).toMatchObject({ phase: "off", receipt: null });
  expect(document.steps.map(({ from, to }) => `${from} ${to}`)).toEqual([
    "off dual-write",
    "dual-write backfill",
  ]);
  expect(document.steps[0]?.sql?.map(({ sql }) => sql).join()).toContain("create schema crossfade");
  expect(document.steps[1]?.gates).toContainEqual(
    expect.objectContaining({ name: "lag", state: "unknown" }),
  );
});

test("status without the control store: one document, the phase unknown, exit 2", async () => {
  const away = { database: "postgres://u:s3cret@127.0.0.1:1/x" };
  const { exit, document, stdout, stderr } = await runCli<Status>(
    writePlanFile(plan({ control: away })),
    "status",
  );
  expect(exit).toBe(2);
  expect(document).toMatchObject({
    phase: "unknown",
    quarantine: null,
    problems: [expect.stringMatching(/^control database .*ECONNREFUSED/)],
  });
  expect(stdout + stderr).not.toContain("s3cret");
});

test("--version is a document of its own", async () => {
  const { exit, document } = await runCli(writePlanFile(plan()), "--version");
  expect(exit).toBe(0);
  expect(document).toEqual({ version: packageVersion() });
});
