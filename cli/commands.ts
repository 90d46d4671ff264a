import type { AnyCommand, CommandGroup } from "./command.ts";
import { advance } from "./advance.ts";
import { approve } from "./approve.ts";
import { backfill } from "./backfill.ts";
import { backup } from "./backup.ts";
import { check } from "./check.ts";
import { clean } from "./clean.ts";
import { control } from "./control.ts";
import { drill } from "./drill.ts";
import { grants } from "./grants.ts";
import { init } from "./init.ts";
import { maintenance } from "./maintenance.ts";
import { mirror } from "./mirror.ts";
import { pause, resume } from "./pause.ts";
import { proxy } from "./proxy.ts";
import { quarantine } from "./quarantine.ts";
import { report } from "./report.ts";
import { rollback } from "./rollback.ts";
import { schema } from "./schema.ts";
import { status } from "./status.ts";
import { tune } from "./tune.ts";
import { up } from "./up.ts";
import { verify } from "./verify.ts";

/**
 * In the order in which a migration meets them. Every command starts with all of these modules, so what one of them alone needs
 * of size (a role, a library) it imports when it runs.
 */
export const COMMANDS: readonly (AnyCommand | CommandGroup)[] = [
  init,
  schema,
  check,
  grants,
  up,
  status,
  advance,
  rollback,
  drill,
  verify,
  quarantine,
  approve,
  pause,
  resume,
  maintenance,
  report,
  backup,
  tune,
  clean,
  proxy,
  mirror,
  backfill,
  control,
];
