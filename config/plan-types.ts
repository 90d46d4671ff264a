import type { BackupPlan } from "./backup.ts";
import type { JsonPath } from "./json-path.ts";
import type { PolicyPlan } from "./policy.ts";
import type { Consistency, Deferrable, RouteKind, TokenCarrier } from "./words.ts";

/**
 * The plan as every other module sees it: validated, fully defaulted, read-only. Times are milliseconds, shares are
 * 0–1, factors are plain numbers. Made by `loadPlan` (load.ts) only.
 */
export interface Plan {
  readonly name: string;
  /** Absolute path of the file it came from; relative paths in the plan are relative to its folder. */
  readonly file: string;
  readonly old: SidePlan;
  readonly new: SidePlan;
  readonly control: { readonly database: string; readonly schema: string };
  /** A redis:// URL, or undefined when no Redis is used. */
  readonly redis: string | undefined;
  readonly feed: "trigger" | "wal";
  /** `retainBytes`: WAL a server may keep for a slot of ours before it is dropped. */
  readonly wal: { readonly retainBytes: number };
  readonly forward: MappingSet;
  /** undefined: there is no way back after write-new. */
  readonly reverse: MappingSet | undefined;
  readonly proxy: ProxyPlan;
  readonly backfill: {
    readonly workers: number;
    /** Rows per chunk. */
    readonly chunk: number;
    /** How long one sync of the copy should take. */
    readonly targetMs: number;
    /** What of the new tables is dropped during the copy and built again afterwards. */
    readonly defer: readonly Deferrable[];
    /** Bytes that the copy may take on the new database's disk. */
    readonly diskFreeBytes: number | undefined;
    readonly throttle: {
      /** Factor over the sidecar's baseline p99, e.g. 1.2. */
      readonly p99: number | undefined;
      readonly replicaLagMs: number | undefined;
      /** Active sessions on the source. */
      readonly active: number | undefined;
      /** Bytes of WAL per second on the target. */
      readonly wal: number | undefined;
    };
  };
  readonly verify: VerifyPlan;
  readonly checks: readonly CheckPlan[];
  readonly shadow: {
    /** 0: nothing is sampled, and the gate asks for nothing. */
    readonly sample: number;
    readonly ignore: readonly JsonPath[];
    readonly unordered: readonly JsonPath[];
    readonly redact: readonly JsonPath[];
  };
  readonly canary: {
    readonly steps: readonly number[];
    readonly stayMs: number;
    readonly fallback: boolean;
    /** How long new may take to begin an answer that old can give instead. */
    readonly fallbackAfterMs: number;
  };
  /** `hold`: the longest a flip may hold writes, ms. */
  readonly flip: {
    readonly holdMs: number;
    /** What one sidecar keeps of them: `ms` is the longest one write may wait, over several leases. */
    readonly held: { readonly writes: number; readonly bytes: number; readonly ms: number };
  };
  /** What writes are answered with while maintenance is on. */
  readonly maintenance: { readonly message: string; readonly retryAfterMs: number };
  readonly gates: {
    readonly verifyMaxAgeMs: number;
    readonly lagMs: number;
    readonly shadow: { readonly samples: number; readonly mismatch: number };
    /** `errors`: how much larger new's error share may be (0.001 = +0.1 %); `p99`: factor over old's. */
    readonly canary: { readonly samples: number; readonly errors: number; readonly p99: number };
  };
  /** Stays, windows, hooks, and when to go back without being asked. */
  readonly policy: PolicyPlan;
  /** Number of distinct people who must approve a phase. */
  readonly approvals: Readonly<Record<string, number>>;
  readonly backup: BackupPlan;
  readonly operate: { readonly listen: ListenAddress; readonly tokens: string | undefined };
  readonly notify: readonly string[];
  /** undefined: no spans. */
  readonly trace?: TracePlan | undefined;
  /** Parts of the plan that are accepted but do not act yet: `check` and `up` print these. */
  readonly notActing: readonly string[];
}

export interface SidePlan {
  /** postgres:// URL. A secret: never print it, print `describeDatabase()` of it. */
  readonly database: string;
  readonly schema: string;
  /** Base URL of the app, without trailing slash. */
  readonly app: string;
  /** For an https:// app. */
  readonly tls?: AppTlsPlan | undefined;
}

/** PEM files, as absolute paths. */
export interface TlsFiles {
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly ca?: string | undefined;
}

/** Where spans go, and the share of traces that begin here and are recorded. */
export interface TracePlan {
  readonly otlp: string;
  readonly sample: number;
}

export interface AppTlsPlan extends TlsFiles {
  /** The name in the app's certificate, where it is not the URL's host. */
  readonly serverName: string | undefined;
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Target table name → its mappings (one or a list); or every table, same names and columns. */
export type MappingSet =
  | { readonly kind: "identity" }
  | { readonly kind: "tables"; readonly mappings: readonly MappingPlan[] };

export interface MappingPlan {
  /** Where it stands in the plan, for messages: `forward.tags` or `forward.address[1]`. */
  readonly path: string;
  /** Table of the target side that it makes. */
  readonly target: string;
  readonly from: {
    /** The driving table, on the source side. */
    readonly table: string;
    /** Joins, run on the source side; must return the driving table's key columns. */
    readonly query: string | undefined;
    /** Columns that tell the driving table's rows apart where its own indexes do not. */
    readonly key?: readonly string[] | undefined;
    /** Source-side table → SQL (expression over its row, or a select) that gives the driving keys to re-make. */
    readonly also: ReadonlyMap<string, string>;
  };
  readonly where: string | undefined;
  /** `none`: shared rows; a map: target column → SQL over the source key; undefined: the default (primary key). */
  readonly own: "none" | ReadonlyMap<string, string> | undefined;
  /** Target column → SQL over the source row. */
  readonly set: ReadonlyMap<string, string>;
  /** Reason → SQL condition over the source row: true sends the row to quarantine. */
  readonly reject: ReadonlyMap<string, string>;
  /** Absolute path of the module that makes the rows instead of `set`, `where` and `reject`. */
  readonly transform?: string | undefined;
}

export interface ProxyPlan {
  readonly listen: ListenAddress;
  /** HTTPS and HTTP/2 towards clients; with `ca` they must show a certificate. */
  readonly tls?: TlsFiles | undefined;
  /** Sources of a client's identity, in order: `header:NAME`, `cookie:NAME`, `ip`. */
  readonly client: readonly ClientSource[];
  readonly consistency: Consistency;
  /** How what binds a client gets from one sidecar to the others. `none`: where there are several, the authority answers. */
  readonly tokens: TokenCarrier;
  readonly routes: readonly RoutePlan[];
  /** false: no `crossfade-*` response headers. */
  readonly headers: boolean;
  /** Sidecars that share `listen`, each a process. */
  readonly processes: number;
  readonly limits: ClientLimits;
  /** Absolute: where a sidecar keeps the routing state it knew last. */
  readonly state: string;
  readonly appTimeouts: AppTimeouts;
}

/** What an app may take: to be connected to, and from a request's end to its answer's head. */
export interface AppTimeouts {
  readonly connectMs: number;
  readonly headMs: number;
}

/** What one client may take of a sidecar. */
export interface ClientLimits {
  readonly headerBytes: number;
  readonly headerTimeoutMs: number;
  /** Between two parts of a request's content. */
  readonly bodyTimeoutMs: number;
  /** Between two requests of a connection. */
  readonly idleTimeoutMs: number;
  readonly connections: number;
}

export type ClientSource =
  | { readonly by: "header"; readonly name: string }
  | { readonly by: "cookie"; readonly name: string }
  | { readonly by: "ip" };

export interface RoutePlan {
  /** Upper-case method, or `*`. */
  readonly method: string;
  /** find-my-way path pattern. */
  readonly path: string;
  readonly kind: RouteKind;
  /** Pins the route to a side, or to whichever side is the authority. */
  readonly side: "old" | "new" | "authority" | undefined;
}

export interface VerifyPlan {
  /** Examples recorded per chunk. */
  readonly examples: number;
  /** `column`, `table.column` or `*`: values that no example shows. */
  readonly redact: readonly string[];
  readonly continuous: boolean;
}

/** SQL that must return no rows on a side, or the same rows on both. */
export interface CheckPlan {
  readonly name: string;
  readonly on: "old" | "new" | "both";
  readonly sql: string;
}
