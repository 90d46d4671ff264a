import { describeDatabase } from "../../config/describe.ts";
import { CrossfadeError } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import type { Table } from "./catalog.ts";
import { allMappings, type CompiledDirection } from "./mapping.ts";

/**
 * What the target would do by itself to mapped rows while a sync writes them: triggers of the user's, and foreign keys
 * that delete or change rows. In replica sessions none of it happens. Without that privilege it would happen on top of
 * what the mirror carries over: a counter is applied twice, a cascade removes rows whose source is still there.
 */
export function targetActions(compiled: CompiledDirection): string[] {
  const targets = new Map<string, Table>();
  for (const { mapping } of allMappings(compiled)) targets.set(mapping.target.name, mapping.target);
  return [...targets.values()].flatMap((table) => [
    ...table.userTriggers.map((name) => `${table.name} has the trigger ${name}`),
    ...table.foreignKeys.flatMap((key) => {
      const referenced = targets.get(key.referencedTable);
      if (referenced === undefined || referenced.schema !== key.referencedSchema) return [];
      // A sync never updates the columns of a mapping's key.
      const mayChange = key.referencedColumns.some((name) => !referenced.key.includes(name));
      return key.actsOnDelete || (key.actsOnUpdate && mayChange)
        ? [
            `foreign key ${key.name} changes rows of ${table.name} when one of ${key.referencedTable} goes or changes`,
          ]
        : [];
    }),
  ]);
}

/** Call where sync sessions may not take the replica role. Throws DATABASE_UNFIT naming what would act; changes nothing. */
export function refuseActions(compiled: CompiledDirection, plan: Plan): void {
  const actions = targetActions(compiled);
  if (actions.length === 0) return;
  const side = compiled.target;
  throw new CrossfadeError(
    "DATABASE_UNFIT",
    `${side} database (${describeDatabase(plan[side].database)}): the role may not set session_replication_role, and without it these would act on mirrored rows a second time:\n${actions.map((action) => `  ${action}`).join("\n")}`,
    {
      hint: "Let the role take the replica role (Postgres 15 and newer: grant set on parameter session_replication_role to it; a superuser may always), or drop what is named for the time of the migration.",
    },
  );
}
