import { describeDatabase } from "./describe.ts";
import type { Plan } from "./plan-types.ts";

/** A plan for people to read: no password, token, webhook path or key in it, and nothing that is not in the file. */
export function publicPlan(plan: Plan): unknown {
  return plain({
    ...plan,
    old: { ...plan.old, database: describeDatabase(plan.old.database) },
    new: { ...plan.new, database: describeDatabase(plan.new.database) },
    control: { ...plan.control, database: describeDatabase(plan.control.database) },
    backup: { ...plan.backup, key: plan.backup.key === undefined ? undefined : "(set)" },
    operate: { ...plan.operate, tokens: plan.operate.tokens === undefined ? undefined : "(set)" },
  });
}

/** A webhook's path is its secret, and an address may hold a password: only scheme and host are shown. */
function shown(text: string): string {
  if (!/^[a-z]+:\/\//i.test(text)) return text;
  if (!URL.canParse(text)) return "(unreadable address)";
  const { protocol, host } = new URL(text);
  return `${protocol}//${host}`;
}

/** Maps become objects; what is undefined is left out. */
function plain(value: unknown): unknown {
  if (typeof value === "string") return shown(value);
  if (value instanceof Map) return plain(Object.fromEntries(value) as unknown);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, item]) =>
      item === undefined ? [] : [[key, plain(item)]],
    ),
  );
}
