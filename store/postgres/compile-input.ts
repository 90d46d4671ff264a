import type pg from "pg";
import type { Plan } from "../../config/plan-types.ts";
import type { Direction } from "../../config/words.ts";
import type { Catalog } from "./catalog.ts";
import type { ServerTypes } from "./server-types.ts";

/** What compiling a direction begins with. */
export interface CompileRequest {
  readonly plan: Plan;
  readonly direction: Direction;
  readonly sourceCatalog: Catalog;
  readonly targetCatalog: Catalog;
  /** A session on the source whose search_path is the source's schema. */
  readonly sourceClient: pg.ClientBase;
  /** A session on the new database whose search_path is the new schema: expressions run there, in both directions. */
  readonly mappingClient: pg.ClientBase;
}

/** What compiling a direction works with. */
export interface CompileInput extends CompileRequest {
  readonly sourceTypes: ServerTypes;
  readonly mappingTypes: ServerTypes;
}
