import type { VerifyPlan } from "../../config/plan-types.ts";
import type { Driver, Mapping } from "../../store/postgres/mapping.ts";
import { ident } from "../../store/postgres/quote.ts";
import { ownedSelect } from "../../store/postgres/sync-sql.ts";
import { count, exampleKey, type Finding } from "./finding.ts";
import type { Lab, Staged } from "./lab.ts";
import type { Trial } from "./trial.ts";

/**
 * Rows that a key makes and does not own: they would be written, and never removed when their source row goes. `set` and
 * `own` with the same words agree by themselves.
 */
export async function strayRows(
  lab: Lab,
  { driver, mapping }: { readonly driver: Driver; readonly mapping: Mapping },
  {
    staged,
    trial,
    verify,
  }: { readonly staged: Staged; readonly trial: Trial; readonly verify: VerifyPlan },
): Promise<Finding[]> {
  if (mapping.own.kind === "none") return [];
  const doubtful = mapping.own.columns.filter(({ column, expression }) => {
    const made = mapping.columns.find(({ name }) => name === column);
    return made !== undefined && made.expression.trim() !== expression.trim();
  });
  if (doubtful.length === 0) return [];
  const names = driver.key.map(({ name }) => ident(name)).join(", ");
  const owned = ownedSelect(driver, doubtful, `(select ${names} from ${staged.table})`, true);
  const keys = driver.key.map((_, i) => `cf_k${i}`);
  const [row] = await lab.readOnly(() =>
    lab.select(
      `select count(*) over ()::text, ${keys.map((key) => `m.${key}`).join(", ")} from ${trial.made} m
       join (${owned}) o on ${keys.map((key) => `o.${key}::text = m.${key}`).join(" and ")}
       where ${doubtful.map(({ column }) => `m.${ident(column)} is distinct from o.${ident(column)}`).join(" or ")}
       order by m.cf_n limit 1`,
    ),
  );
  if (row === undefined) return [];
  const [n, ...key] = row;
  return [
    {
      severity: "error",
      path: `${mapping.path}.own`,
      what: `${count(Number(n), "row")} made are not those that their key owns (${doubtful.map(({ column }) => column).join(", ")} differ): nobody would remove them`,
      rows: Number(n),
      example: { key: exampleKey(verify, driver.name, driver.key, key) },
      fix: {
        where: "plan",
        text: `own: { ${doubtful.map(({ column }) => `${column}: what \`set\` gives ${column}`).join(", ")} }`,
        destructive: false,
      },
    },
  ];
}
