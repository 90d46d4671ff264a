import { InvalidArgumentError, Option } from "commander";
import { isPhase, type Phase, PHASES } from "../config/words.ts";
import type { WalkResult, WalkStep } from "../switchover/walk.ts";
import { effectMeaning } from "../switchover/effect-meaning.ts";
import { blocks } from "../switchover/gates.ts";
import { estimatesText } from "./check-view.ts";
import type { Result } from "./command.ts";
import { gateText, receiptText } from "./status-view.ts";

/** What `advance` and `rollback` share: their options and how their result reads. */

export interface WalkCommandOptions {
  readonly to?: Phase;
  readonly dryRun?: boolean;
  readonly wait?: boolean;
  readonly wayBack: boolean;
}

export function toOption(description: string): Option {
  return new Option("--to <phase>", description).argParser((word: string): Phase => {
    if (isPhase(word)) return word;
    throw new InvalidArgumentError(
      `Found ${JSON.stringify(word)}, expected one of: ${PHASES.join(", ")}.`,
    );
  });
}

export const DRY_RUN = new Option(
  "--dry-run",
  "print what it would do and which gates stand in the way; changes nothing",
);
export const WAIT = new Option(
  "--wait",
  "wait for gates that time or a comparison may open, instead of being refused",
);

export function walkResult(walk: WalkResult, dryRun: boolean): Result {
  const lines = dryRun ? walk.steps.flatMap(plannedStep) : walk.steps.map(doneStep);
  if (dryRun) lines.push(...verdict(walk.steps));
  if (walk.receipt !== null) lines.push(receiptText(walk.receipt));
  if (walk.why !== undefined) lines.push(walk.why);
  if (lines.length === 0) lines.push("nothing to do");
  lines.push(`phase ${walk.phase}, epoch ${walk.epoch}${dryRun ? " (nothing was changed)" : ""}`);
  return { json: walk, text: lines.join("\n") };
}

/** After pages of SQL: whether it would go at all. */
function verdict(steps: readonly WalkStep[]): string[] {
  if (steps.length === 0) return [];
  const held = steps.flatMap((step) =>
    (step.gates ?? []).filter(blocks).map(({ name }) => `${name} (before ${step.to})`),
  );
  return [held.length === 0 ? "no gate stands in the way now" : `held back by ${held.join(", ")}`];
}

function doneStep(step: WalkStep): string {
  return `${step.from} → ${step.to}${canaryStep(step)}`;
}

function plannedStep(step: WalkStep): string[] {
  const gates = (step.gates ?? []).map((gate) => `  gate  ${gateText(gate)}`);
  const effects = (step.effects ?? []).map((effect) => `  then  ${effectMeaning(effect)}`);
  const sql = (step.sql ?? []).map(
    (statement) => `  on ${statement.on}  ${statement.sql.replaceAll("\n", "\n          ")}`,
  );
  const { estimates } = step;
  const copy =
    estimates === undefined
      ? []
      : [
          `  copy  ${typeof estimates === "string" ? `what it will take is not known: ${estimates}` : estimatesText(estimates)}`,
        ];
  return [`would go ${doneStep(step)}`, ...gates, ...copy, ...effects, ...sql];
}

function canaryStep({ canary_step }: WalkStep): string {
  return canary_step === undefined ? "" : ` (step ${canary_step})`;
}
