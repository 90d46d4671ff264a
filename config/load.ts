import { isIP } from "node:net";
import { resolve } from "node:path";
import { parseDatabaseUrl } from "./describe.ts";
import { type Environment, expandEnvironment } from "./environment.ts";
import { PlanError, type PlanIssue } from "./errors.ts";
import { normalise } from "./normalise.ts";
import { notActing } from "./not-acting.ts";
import { pathOf, planIssues } from "./plan-issues.ts";
import type { ListenAddress, Plan } from "./plan-types.ts";
import { readYaml } from "./read-yaml.ts";
import { type PlanFile, planSchema } from "./schema.ts";
import { show } from "./units.ts";
import { DIRECTIONS, SIDES } from "./words.ts";

/**
 * Reads and validates a plan file. Throws one PlanError with every problem it finds. The environment is read here and
 * nowhere else.
 */
export function loadPlan(file: string, env: Environment = process.env): Plan {
  const path = resolve(file);
  const missing: PlanIssue[] = [];
  const data = expandEnvironment(readYaml(path), env, missing);
  const parsed = planSchema.safeParse(data);
  const found = parsed.success ? acrossFields(parsed.data) : planIssues(parsed.error.issues, data);
  // A value that does not hold only because its variable is missing is one problem, not two.
  const issues = [
    ...missing,
    ...found.filter((issue) => !missing.some(({ path: at }) => at === issue.path)),
  ];
  if (issues.length > 0 || !parsed.success) throw new PlanError(file, issues);
  return normalise(path, parsed.data, notActing(data));
}

function acrossFields(plan: PlanFile): PlanIssue[] {
  return [
    ...databaseIssues(plan),
    ...appIssues(plan),
    ...appTlsIssues(plan),
    ...addressIssues(plan),
    ...routeIssues(plan),
    ...transformIssues(plan),
  ];
}

function databaseIssues(plan: PlanFile): PlanIssue[] {
  const issues: PlanIssue[] = [];
  const check = (path: string, url: string) => {
    const message = databaseProblem(url);
    if (message !== undefined) issues.push({ path, message });
  };
  for (const side of SIDES) check(`${side}.database`, plan[side].database);
  if (plan.control.database) check("control.database", plan.control.database);
  if (plan.redis && !/^rediss?:\/\//.test(plan.redis)) {
    issues.push({
      path: "redis",
      message: `found ${scheme(plan.redis)}, expected redis://host:port, rediss://host:port or nothing`,
    });
  }
  if (plan.proxy.tokens === "redis" && !plan.redis) {
    issues.push({
      path: "proxy.tokens",
      message:
        'found "redis", but redis is not set; expected redis: redis://host:port, or cookie or none',
    });
  }
  for (const side of SIDES) {
    // Objects of ours stand in `crossfade` of each side's database.
    if (plan[side].schema === "crossfade") {
      issues.push({
        path: `${side}.schema`,
        message: `found "crossfade", expected the app's schema: this one is Crossfade's own`,
      });
    }
  }
  if (issues.length === 0 && place(plan.old) === place(plan.new)) {
    issues.push({
      path: "new",
      message:
        "found the same database and schema as old, expected another database or another schema",
    });
  }
  return issues;
}

/** Says what is wrong with a database URL without showing it: it may hold a password. */
function databaseProblem(url: string): string | undefined {
  const expected = "expected postgres://user:password@host:port/database";
  if (url === "") return `found nothing, ${expected}`;
  if (!/^postgres(ql)?:\/\//.test(url))
    return `found ${scheme(url)}, ${expected}; other databases are not supported yet`;
  if (parseDatabaseUrl(url) !== undefined) return undefined;
  return `found an address that cannot be read, ${expected}; percent-encode characters such as @ : / # ? in a password`;
}

function scheme(url: string): string {
  return /^[a-z][a-z0-9+.-]*:\/\//i.exec(url)?.[0] ?? "text that is no URL";
}

/** The same for two spellings of one place. Two names of one server are told apart by `up`, which asks the servers. */
function place(side: PlanFile["old"]): string {
  const address = parseDatabaseUrl(side.database);
  return [
    isLoopback(address?.host ?? "") ? "loopback" : address?.host.toLowerCase(),
    address?.port,
    address?.database,
    side.schema,
  ].join("\n");
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

function appIssues(plan: PlanFile): PlanIssue[] {
  return SIDES.flatMap((side) => {
    const message = appProblem(plan[side].app, plan.proxy.listen);
    return message === undefined ? [] : [{ path: `${side}.app`, message }];
  });
}

function appProblem(app: string, listen: ListenAddress): string | undefined {
  const url = URL.canParse(app) ? new URL(app) : undefined;
  if (
    url === undefined ||
    !/^https?:$/.test(url.protocol) ||
    url.username !== "" ||
    url.search !== "" ||
    url.hash !== ""
  ) {
    const found = url !== undefined && url.username !== "" ? "an address with a user" : show(app);
    return `found ${found}, expected http://host:port or https://host:port, without user, query or fragment`;
  }
  const port = Number(url.port || (url.protocol === "https:" ? 443 : 80));
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const here =
    host === listen.host || (isLoopback(host) && (isLoopback(listen.host) || isAny(listen.host)));
  return here && port === listen.port
    ? `found the address of proxy.listen (${show(app)}), expected the app's own`
    : undefined;
}

function appTlsIssues(plan: PlanFile): PlanIssue[] {
  return SIDES.flatMap((side) => {
    const { tls, app } = plan[side];
    if (tls === undefined) return [];
    if (!/^https:/i.test(app))
      return [
        {
          path: `${side}.tls`,
          message: "found tls for an app that is not https://, expected an https:// URL as app",
        },
      ];
    if ((tls.cert === undefined) === (tls.key === undefined)) return [];
    const missing = tls.cert === undefined ? "cert" : "key";
    return [
      {
        path: `${side}.tls.${missing}`,
        message: "found nothing, expected both cert and key, or neither",
      },
    ];
  });
}

function isAny(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function addressIssues({ proxy, operate }: PlanFile): PlanIssue[] {
  const [a, b] = [proxy.listen, operate.listen];
  const issues: PlanIssue[] = [];
  if (a.port === b.port && a.port !== 0 && (a.host === b.host || isAny(a.host) || isAny(b.host))) {
    issues.push({
      path: "operate.listen",
      message: `found port ${b.port}, which proxy.listen has, expected another`,
    });
  }
  if (!isLoopback(b.host) && !operate.tokens) {
    const message = `found ${b.host}, which others can reach, without operate.tokens; expected a loopback address, or tokens`;
    issues.push({ path: "operate.listen", message });
  }
  return issues;
}

function routeIssues(plan: PlanFile): PlanIssue[] {
  const seen = new Set<string>();
  return plan.proxy.routes.flatMap((route, i) => {
    const key = `${route.match.method} ${route.match.path}`;
    const twice = seen.has(key);
    seen.add(key);
    if (twice)
      return [
        {
          path: `proxy.routes[${i}].match`,
          message: `found ${show(key)} a second time, expected each route once`,
        },
      ];
    if (route.kind !== undefined || route.match.method !== "*") return [];
    return [
      {
        path: `proxy.routes[${i}].kind`,
        message: "found nothing, expected read, write or stream: the method * does not say",
      },
    ];
  });
}

/** A module makes whole rows: SQL beside it would never run. */
function transformIssues(plan: PlanFile): PlanIssue[] {
  return DIRECTIONS.flatMap((direction) => {
    const set = plan[direction];
    if (set === undefined || set === "identity") return [];
    return Object.entries(set).flatMap(([target, entry]) =>
      [entry].flat().flatMap((mapping, i) => {
        if (mapping.transform === undefined) return [];
        const given = [
          ...(Object.keys(mapping.set).length > 0 ? ["set"] : []),
          ...(mapping.where === undefined ? [] : ["where"]),
          ...(Object.keys(mapping.reject).length > 0 ? ["reject"] : []),
        ];
        return given.map((name) => ({
          path: pathOf([direction, target, ...(Array.isArray(entry) ? [i] : []), name]),
          message: `found ${name} beside transform, expected one or the other: the module makes the rows, leaves some out, and rejects`,
        }));
      }),
    );
  });
}
