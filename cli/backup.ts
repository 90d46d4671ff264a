import Table from "cli-table3";
import { Argument, Option } from "commander";
import { describeDatabase, parseDatabaseUrl } from "../config/describe.ts";
import { CrossfadeError, EXIT } from "../config/errors.ts";
import { type Side, SIDES } from "../config/words.ts";
import { createBackup, restoreBackup, verifyBackup } from "../store/backup/backup.ts";
import {
  expired,
  findBackup,
  listBackups,
  type Manifest,
  removeBackup,
} from "../store/backup/catalogue.ts";
import { addEvent } from "../store/control/history.ts";
import { readMigration } from "../store/control/migration.ts";
import { isInstalled } from "../store/control/schema.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { Command, CommandGroup, Context } from "./command.ts";
import { userName } from "./request.ts";
import { withStatusInput } from "./status-input.ts";

const id = new Argument("[id]", "which backup (default: the newest)");
const WHERE = `Backups are folders below backup.dir of the plan (default: backups, beside the plan), made with pg_dump, with a checksum
for each file, and encrypted where the plan has a backup.key.`;

const create: Command<{ readonly side?: Side }> = {
  name: "create",
  summary: "dumps both databases",
  details: `Dumps the databases with pg_dump while everything runs on. Whole or not at all. ${WHERE}`,
  examples: ["crossfade backup create", "crossfade backup create --side old"],
  options: [new Option("--side <side>", "one side only").choices(SIDES)],
  logLevel: "warn",
  async run({ plan, signal }, { side }) {
    const manifest = await createBackup(plan, {
      why: `asked for by ${userName()}`,
      sides: side === undefined ? SIDES : [side],
      signal,
    });
    return { json: { ok: true, backup: manifest }, text: table([manifest]) };
  },
};

const list: Command = {
  name: "list",
  summary: "lists the backups",
  details: `Lists the backups, oldest first. ${WHERE}`,
  examples: ["crossfade backup list"],
  options: [],
  logLevel: "warn",
  async run({ plan }) {
    const found = await listBackups(plan.backup.dir);
    return {
      json: { ok: true, dir: plan.backup.dir, backups: found },
      text: found.length === 0 ? `${plan.backup.dir}: no backup yet` : table(found),
    };
  },
};

const verify: Command = {
  name: "verify",
  summary: "reads a backup whole and says whether it can be restored",
  details: `Compares every checksum, decrypts, and has pg_restore read every entry. Touches no database. ${WHERE}`,
  examples: ["crossfade backup verify", "crossfade backup verify 2026-01-31T02-00-00-000Z"],
  options: [],
  arguments: [id],
  logLevel: "warn",
  async run({ plan, signal }, _, [which]) {
    const manifest = await findBackup(plan.backup.dir, which);
    const problems = await verifyBackup(plan, manifest, signal);
    return {
      json: { ok: problems.length === 0, backup: manifest.id, problems },
      text:
        problems.length === 0
          ? `${manifest.id}: good`
          : [`${manifest.id}:`, ...problems.map((problem) => `  ${problem}`)].join("\n"),
      exit: problems.length === 0 ? EXIT.done : EXIT.failed,
    };
  },
};

interface RestoreArguments {
  readonly side: Side;
  readonly into?: string;
  readonly yes?: true;
}

const restore: Command<RestoreArguments> = {
  name: "restore",
  summary: "puts one side's database back as it was",
  details: `Restores one side's dump in one transaction: what the dump has is replaced, all of it or nothing. Everything written since the
backup is lost, so it asks for --yes. Into the side's own database it is refused while a migration runs there; name another,
empty database with --into to look at a backup. The restored database holds Crossfade's own objects as of the backup:
crossfade clean removes them. ${WHERE}`,
  examples: [
    "crossfade backup restore --side old --into postgres://admin@db1/look --yes",
    "crossfade backup restore 2026-01-31T02-00-00-000Z --side old --yes",
  ],
  options: [
    new Option("--side <side>", "which side's dump").choices(SIDES).makeOptionMandatory(),
    new Option("--into <url>", "another database than the side's own"),
    new Option("--yes", "what is there now may be lost"),
  ],
  arguments: [id],
  logLevel: "warn",
  async run(context, { side, into, yes }, [which]) {
    const { plan, signal } = context;
    const manifest = await findBackup(plan.backup.dir, which);
    const target = into ?? plan[side].database;
    if (parseDatabaseUrl(target) === undefined)
      throw new CrossfadeError(
        "USAGE",
        "--into: found no readable database URL, expected postgres://user@host:port/database",
      );
    const own = SIDES.some(
      (one) => describeDatabase(plan[one].database) === describeDatabase(target),
    );
    if (own) await refuseWhileRunning(context);
    if (yes !== true)
      throw new CrossfadeError(
        "REFUSED",
        `this replaces what is in ${describeDatabase(target)} by the backup of ${manifest.at}; everything written since then is lost`,
        { hint: "Say so: crossfade backup restore … --yes" },
      );
    const record = async () =>
      withStore(context, async (store) => {
        await addEvent(store, {
          kind: "backup-restore",
          by: `cli:${userName()}`,
          detail: { backup: manifest.id, side, into: describeDatabase(target) },
        });
      });
    await record();
    const dump = await restoreBackup(plan, manifest, { side, into: target, signal });
    // Its timeline went back with it: what is there now knows of no restore.
    if (describeDatabase(plan.control.database) === describeDatabase(target)) await record();
    return {
      json: {
        ok: true,
        backup: manifest.id,
        side,
        into: describeDatabase(target),
        bytes: dump.bytes,
      },
      text: `${manifest.id}: ${side} restored into ${describeDatabase(target)}`,
    };
  },
};

const prune: Command<{ readonly dryRun?: true }> = {
  name: "prune",
  summary: "removes backups beyond the retention",
  details: `Removes backups beyond backup.keep and older than backup.max_age of the plan; the newest always stays. ${WHERE}`,
  examples: ["crossfade backup prune --dry-run", "crossfade backup prune"],
  options: [new Option("--dry-run", "say what would go")],
  logLevel: "warn",
  async run({ plan }, { dryRun }) {
    const all = await listBackups(plan.backup.dir);
    const going = expired(all, plan.backup, new Date());
    if (dryRun !== true)
      for (const manifest of going) await removeBackup(plan.backup.dir, manifest);
    const word = dryRun === true ? "would go" : "removed";
    return {
      json: {
        ok: true,
        dry_run: dryRun === true,
        removed: going.map((manifest) => manifest.id),
        kept: all.length - going.length,
      },
      text: [
        ...going.map((manifest) => `${word} ${manifest.id}`),
        `${going.length} ${word}, ${all.length - going.length} stay`,
      ].join("\n"),
    };
  },
};

export const backup: CommandGroup = {
  name: "backup",
  summary: "create, list, verify, restore, prune",
  details: `Backups of both databases, taken by hand or before the phases that backup.before of the plan names. ${WHERE}`,
  commands: [create, list, verify, restore, prune],
};

/** Under a running migration a restore is a side that went back in time: the mirror would have to copy everything again. */
async function refuseWhileRunning(context: Context): Promise<void> {
  await withStore(context, async (store) => {
    const { phase } = await readMigration(store);
    if (phase === "off" || phase === "done") return;
    throw new CrossfadeError(
      "REFUSED",
      `a migration is in ${phase}: restoring under it would undo writes that both sides have`,
      {
        hint: "Go back first (crossfade rollback --to off), or restore into another database with --into URL.",
      },
    );
  });
}

async function withStore(
  context: Context,
  work: (store: ControlStore) => Promise<void>,
): Promise<void> {
  await withStatusInput(context, async ({ store }) => {
    if (await isInstalled(store)) await work(store);
  });
}

function table(manifests: readonly Manifest[]): string {
  const rows = new Table({
    head: ["backup", "why", "dumps", "MB", "encrypted"],
    style: { head: [], border: [] },
  });
  for (const manifest of manifests)
    rows.push([
      manifest.id,
      manifest.why,
      manifest.dumps.map(({ side, database }) => `${side} ${database}`).join("\n"),
      manifest.dumps.map(({ bytes }) => (bytes / 1e6).toFixed(1)).join("\n"),
      manifest.encrypted ? "yes" : "no",
    ]);
  return rows.toString();
}
