import { Document, type Pair, type Scalar, type YAMLMap } from "yaml";
import { SIDES, type Side } from "../config/words.ts";
import type { Draft, DraftTable } from "../store/postgres/draft.ts";

export interface DraftPlan {
  readonly name: string;
  readonly sides: Readonly<Record<Side, { readonly url: string; readonly schema: string }>>;
  readonly forward: Draft;
  readonly reverse: Draft;
}

const APP_PORT = { old: 4001, new: 4002 } as const;

/** The text of a plan file: what is guessed as YAML, what is not as comments beside it. */
export function renderDraft(plan: DraftPlan): string {
  const document = new Document({
    name: plan.name,
    ...Object.fromEntries(SIDES.map((side) => [side, sideOf(side, plan.sides[side])])),
    forward: mappings(plan.forward),
    reverse: mappings(plan.reverse),
    proxy: { listen: "127.0.0.1:8080" },
  });
  document.commentBefore = ` A draft by crossfade init: read every line, decide what is marked, then run crossfade check.
 The word "decide:" marks what a reading of both catalogs cannot know.`;
  for (const direction of ["forward", "reverse"] as const)
    annotate(document, direction, plan[direction]);
  return document.toString({ lineWidth: 0 });
}

function sideOf(side: Side, { url, schema }: { readonly url: string; readonly schema: string }) {
  const database = `\${${side.toUpperCase()}_DATABASE_URL:-${withoutPassword(url)}}`;
  return { database, schema, app: `http://127.0.0.1:${APP_PORT[side]}` };
}

/** A plan is kept with the code: its file holds no secret. */
function withoutPassword(url: string): string {
  return url
    .replace(/^(postgres(?:ql)?:\/\/[^:@/?#]*):[^@]*@/, "$1@")
    .replaceAll(/([?&])(?:ssl)?password=[^&]*/gi, "$1")
    .replace(/[?&]+$/, "");
}

function mappings(draft: Draft): unknown {
  if (draft.identity) return "identity";
  return Object.fromEntries(
    draft.tables.flatMap(({ target, from, set }) =>
      from === undefined
        ? []
        : [[target, { from, ...(set.size === 0 ? {} : { set: Object.fromEntries(set) }) }]],
    ),
  );
}

/** Comments above the mappings they are about; those of tables without a guess stand above the whole section. */
function annotate(document: Document, direction: "forward" | "reverse", draft: Draft): void {
  if (draft.identity) return;
  const root = document.contents as YAMLMap<Scalar<string>, unknown>;
  const section = root.items.find(({ key }) => key.value === direction);
  if (section === undefined) return;
  const made = direction === "forward" ? "new" : "old";
  const lines = [
    ` Tables of the ${made} schema: how rows of the other side make them.`,
    ...draft.tables.filter(({ from }) => from === undefined).flatMap(decisions),
    ...(draft.unused.length === 0
      ? []
      : [` decide: no mapping reads ${draft.unused.join(", ")}: is nothing lost?`]),
  ];
  section.key.commentBefore = lines.join("\n");
  section.key.spaceBefore = true;
  const entries = section.value as YAMLMap<Scalar<string>, unknown>;
  for (const pair of entries.items as Pair<Scalar<string>, unknown>[]) {
    const table = draft.tables.find(({ target }) => target === pair.key.value);
    if (table !== undefined && table.open.length > 0)
      pair.key.commentBefore = decisions(table).join("\n");
  }
}

function decisions(table: DraftTable): string[] {
  return table.open.map((sentence) => ` decide: ${sentence}`);
}
