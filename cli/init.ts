import { existsSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { Option } from "commander";
import { parseDatabaseUrl } from "../config/describe.ts";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { SIDES, type Side } from "../config/words.ts";
import { type Catalog, readCatalog } from "../store/postgres/catalog.ts";
import { draftDirection } from "../store/postgres/draft.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";
import type { StandaloneCommand } from "./command.ts";
import { renderDraft } from "./draft-yaml.ts";

interface Options {
  readonly old: string;
  readonly new: string;
  readonly oldSchema: string;
  readonly newSchema: string;
  readonly name: string;
  readonly plan: string;
}

export const init: StandaloneCommand<Options> = {
  name: "init",
  standalone: true,
  summary: "reads both databases and drafts a plan",
  details: `Reads the tables and columns of both databases (no rows) and writes a plan file with a guess of every mapping, in both
directions. What could not be guessed stands beside it as a comment that begins with "decide:". Changes nothing on either
database and never overwrites a file.

A password in a URL is left out of the file: the plan names the environment variables OLD_DATABASE_URL and NEW_DATABASE_URL.`,
  examples: [
    "crossfade init --old postgres://app@db1/shop --new postgres://app@db2/shop",
    "crossfade init --old $OLD --new $NEW --new-schema shop_v2 --plan shop.yaml",
  ],
  options: [
    new Option(
      "--old <url>",
      "URL of the database the service lives on today",
    ).makeOptionMandatory(),
    new Option("--new <url>", "URL of the database it is to live on").makeOptionMandatory(),
    new Option("--old-schema <schema>", "schema of the old tables").default("public"),
    new Option("--new-schema <schema>", "schema of the new tables").default("public"),
    new Option("--name <name>", "name of the migration").default("migration"),
  ],
  logLevel: "warn",
  async run(_, options) {
    const file = resolve(options.plan);
    if (existsSync(file)) throw fileInTheWay(options.plan);
    const side = (which: Side) => ({
      url: options[which],
      schema: which === "old" ? options.oldSchema : options.newSchema,
    });
    for (const which of SIDES) refuseUnreadable(which, options[which]);
    const catalogs = {
      old: await readSide("old", side("old")),
      new: await readSide("new", side("new")),
    };
    const forward = draftDirection(catalogs.old, catalogs.new);
    const reverse = draftDirection(catalogs.new, catalogs.old);
    const text = renderDraft({
      name: options.name,
      sides: { old: side("old"), new: side("new") },
      forward,
      reverse,
    });
    try {
      writeFileSync(file, text, { flag: "wx" });
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST")
        throw fileInTheWay(options.plan);
      throw new CrossfadeError("USAGE", `${options.plan} cannot be written: ${messageOf(error)}`, {
        hint: "Name another file with --plan FILE.",
      });
    }
    const open = [
      ...openPoints("forward", forward.tables),
      ...openPoints("reverse", reverse.tables),
    ];
    const guessed = forward.tables.filter(({ from }) => from !== undefined).length;
    return {
      json: { ok: true, file, plan: text, tables: forward.tables.length, guessed, open },
      text: [
        `${options.plan}: a draft for ${forward.tables.length} tables of new, ${guessed} of them with a guess`,
        ...open.map(({ path, decide }) => `  decide: ${path}: ${decide}`),
        `Next: read the file, set what it says "decide:" to, give both apps' addresses, then run crossfade check.`,
      ].join("\n"),
    };
  },
};

function openPoints(
  direction: "forward" | "reverse",
  tables: readonly { readonly target: string; readonly open: readonly string[] }[],
): { path: string; decide: string }[] {
  return tables.flatMap(({ target, open }) =>
    open.map((decide) => ({ path: `${direction}.${target}`, decide })),
  );
}

function refuseUnreadable(side: Side, url: string): void {
  if (parseDatabaseUrl(url) !== undefined) return;
  throw new CrossfadeError(
    "USAGE",
    `--${side}: found no readable database URL, expected postgres://user@host:port/database`,
    { hint: "Percent-encode signs such as @ / # ? in a password." },
  );
}

async function readSide(
  side: Side,
  { url, schema }: { readonly url: string; readonly schema: string },
): Promise<Catalog> {
  const client = await openSession({
    url,
    name: sideLabel(side),
    application: applicationName("", "init", String(process.pid)),
    statementTimeoutMs: 30_000,
  });
  try {
    const catalog = await readCatalog(client, schema);
    if (catalog.size > 0) return catalog;
    throw new CrossfadeError(
      "DATABASE_UNFIT",
      `${sideLabel(side)}: found no table in schema ${schema}, expected the tables of the ${side} side`,
      {
        hint:
          side === "new"
            ? "Create the new schema first (crossfade schema up runs your migrations), or name it with --new-schema."
            : "Name the schema with --old-schema.",
      },
    );
  } finally {
    await closeSession(client);
  }
}

function fileInTheWay(file: string): CrossfadeError {
  return new CrossfadeError("USAGE", `${file} exists already and is never overwritten`, {
    hint: "Name another file with --plan FILE, or move this one away.",
  });
}
