import type { Plan } from "../config/plan-types.ts";
import type { Role } from "./role.ts";

/**
 * How Node runs a sidecar. Ten thousand connections leave much that is collected late: with Node's own settings the heap grows to four
 * times of what lives. A smaller step of growth collects old objects sooner; the young generation stays large enough that
 * requests in flight do not get old (docs/decisions/proxy-memory.md has the numbers).
 */
export const PROXY_NODE_FLAGS = ["--max-semi-space-size=8", "--heap-growing-percent=20"] as const;
/** What a copy leaves behind is large and dies at once: a small young generation is swept often, and gives its buffers back. */
const BACKFILL_NODE_FLAGS = ["--max-semi-space-size=2"] as const;

/** How Node runs a role. */
export function nodeFlagsOf(role: string): readonly string[] {
  if (role === "proxy") return PROXY_NODE_FLAGS;
  return role === "backfill" ? BACKFILL_NODE_FLAGS : [];
}

/** The processes of a role: the sidecar may have several. */
export function processesOf(role: Role, { proxy }: Plan): readonly string[] {
  if (role !== "proxy" || proxy.processes === 1) return [role];
  return Array.from({ length: proxy.processes }, (_, index) => `${role}:${index + 1}`);
}

/** The role that a process runs. */
export function roleOf(name: string): Role {
  return name.split(":", 1)[0] as Role;
}

/** What Node runs for one of these processes. */
export function argsOf(
  name: string,
  how: { readonly planFile: string; readonly logLevel: string },
): readonly string[] {
  const [role = name, place] = name.split(":");
  return [
    ...nodeFlagsOf(role),
    process.argv[1] ?? "",
    role,
    "--plan",
    how.planFile,
    "--log-level",
    how.logLevel,
    ...(place === undefined ? [] : ["--process", place]),
  ];
}
