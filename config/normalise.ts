import { backupPlan } from "./backup.ts";
import { dirname, resolve } from "node:path";
import type {
  ClientSource,
  MappingPlan,
  MappingSet,
  Plan,
  RoutePlan,
  SidePlan,
} from "./plan-types.ts";
import { pathOf } from "./plan-issues.ts";
import { normalisePolicy } from "./policy.ts";
import type { MappingFile, MappingSetFile } from "./mapping-schema.ts";
import type { PlanFile } from "./schema.ts";
import type { Direction } from "./words.ts";

/** From what the file says to what the other modules use. */
export function normalise(file: string, plan: PlanFile, notActing: readonly string[]): Plan {
  const { throttle } = plan.backfill;
  return {
    name: plan.name,
    file,
    old: side(file, plan.old),
    new: side(file, plan.new),
    control: { database: plan.control.database || plan.old.database, schema: plan.control.schema },
    redis: plan.redis || undefined,
    feed: plan.feed,
    wal: { retainBytes: plan.wal.retain },
    forward: mappingSet(file, "forward", plan.forward),
    reverse: plan.reverse === undefined ? undefined : mappingSet(file, "reverse", plan.reverse),
    proxy: {
      listen: plan.proxy.listen,
      tls: plan.proxy.tls && inFolderOf(file, plan.proxy.tls),
      client: plan.proxy.client.by.map(clientSource),
      consistency: plan.proxy.consistency,
      tokens: plan.proxy.tokens ?? (plan.redis ? "redis" : "none"),
      routes: plan.proxy.routes.map(route),
      processes: plan.proxy.processes,
      state: resolve(dirname(file), plan.proxy.state),
      headers: plan.proxy.headers,
      limits: {
        headerBytes: plan.proxy.limits.header_bytes,
        headerTimeoutMs: plan.proxy.limits.header_timeout,
        bodyTimeoutMs: plan.proxy.limits.body_timeout,
        idleTimeoutMs: plan.proxy.limits.idle_timeout,
        connections: plan.proxy.limits.connections,
      },
      appTimeouts: {
        connectMs: plan.proxy.limits.connect_timeout,
        headMs: plan.proxy.limits.answer_timeout,
      },
    },
    backfill: {
      workers: plan.backfill.workers,
      chunk: plan.backfill.chunk,
      targetMs: plan.backfill.target,
      defer: plan.backfill.defer,
      diskFreeBytes: plan.backfill.disk_free,
      throttle: {
        p99: throttle.p99,
        replicaLagMs: throttle.replica_lag,
        active: throttle.active,
        wal: throttle.wal,
      },
    },
    verify: plan.verify,
    checks: Object.entries(plan.checks).map(([name, check]) => ({ name, ...check })),
    shadow: plan.shadow,
    canary: {
      steps: plan.canary.steps,
      stayMs: plan.canary.stay,
      fallback: plan.canary.fallback,
      fallbackAfterMs: plan.canary.fallback_after,
    },
    flip: {
      holdMs: plan.flip.hold,
      held: {
        writes: plan.flip.held.writes,
        bytes: plan.flip.held.bytes,
        ms: plan.flip.held.time ?? Math.max(2_000, plan.flip.hold * 4),
      },
    },
    maintenance: {
      message: plan.maintenance.message,
      retryAfterMs: plan.maintenance.retry_after,
    },
    gates: {
      verifyMaxAgeMs: plan.gates.verify.max_age,
      lagMs: plan.gates.lag,
      shadow: plan.gates.shadow,
      canary: plan.gates.canary,
    },
    policy: normalisePolicy(plan, plan.gates),
    backup: backupPlan(file, plan.backup),
    approvals: plan.approvals,
    operate: { listen: plan.operate.listen, tokens: plan.operate.tokens || undefined },
    trace: plan.trace.otlp === "" ? undefined : plan.trace,
    notify: plan.notify,
    notActing,
  };
}

function side(file: string, { tls, app, ...rest }: PlanFile["old"]): SidePlan {
  const url = app.replace(/\/+$/, "");
  if (tls === undefined) return { ...rest, app: url };
  const { server_name: serverName, ...files } = tls;
  return { ...rest, app: url, tls: { ...inFolderOf(file, files), serverName } };
}

/** Paths of the plan are relative to its folder. */
function inFolderOf<Files extends object>(file: string, files: Files): Files {
  const entries = Object.entries(files).map(([name, path]) => [
    name,
    typeof path === "string" ? resolve(dirname(file), path) : path,
  ]);
  return Object.fromEntries(entries) as Files;
}

function mappingSet(file: string, direction: Direction, set: MappingSetFile): MappingSet {
  if (set === "identity") return { kind: "identity" };
  const mappings = Object.entries(set).flatMap(([target, entry]) =>
    Array.isArray(entry)
      ? entry.map((one, i) => mapping(pathOf([direction, target, i]), target, one))
      : [mapping(pathOf([direction, target]), target, entry)],
  );
  return {
    kind: "tables",
    mappings: mappings.map((one) =>
      one.transform === undefined
        ? one
        : { ...one, transform: resolve(dirname(file), one.transform) },
    ),
  };
}

function mapping(path: string, target: string, entry: MappingFile): MappingPlan {
  const { from, own } = entry;
  const named =
    typeof from === "string"
      ? { table: from, query: undefined, key: undefined, also: undefined }
      : from;
  return {
    path,
    target,
    from: {
      table: named.table,
      query: named.query,
      key: named.key,
      also: new Map(Object.entries(named.also ?? {})),
    },
    where: entry.where,
    own: own === undefined || own === "none" ? own : new Map(Object.entries(own)),
    set: new Map(Object.entries(entry.set)),
    reject: new Map(Object.entries(entry.reject)),
    transform: entry.transform,
  };
}

function clientSource(source: string): ClientSource {
  const [by, name = ""] = source.split(/:(.*)/s);
  if (by === "header") return { by, name: name.toLowerCase() };
  if (by === "cookie") return { by, name };
  return { by: "ip" };
}

function route(entry: PlanFile["proxy"]["routes"][number]): RoutePlan {
  const { method, path } = entry.match;
  const byMethod = ["GET", "HEAD", "OPTIONS"].includes(method) ? "read" : "write";
  return { method, path, kind: entry.kind ?? byMethod, side: entry.side };
}
