import { phaseIndex, PHASES } from "../../config/words.ts";
import type { Gate } from "../gate-facts.ts";
import type { Status } from "../status.ts";
import { Card, Explained } from "./explain.tsx";

/** What is needed to advance. */

const MEANING: Readonly<Record<string, string>> = {
  gap: "Whether anything interrupted the chain of changes. A gap means every table is copied and compared again.",
  lag: "How old the oldest change is that the mirror has not carried over yet.",
  backfill: "How many chunks of the old rows are copied.",
  verify:
    "The last comparison of every row: it must have found no difference, and must not be too old.",
  shadow: "Reads asked of both apps: how many there were, and how many were answered differently.",
  quarantine: "Keys that could not be carried over and whose loss nobody has accepted.",
  sidecars: "Sidecars that were seen lately and route by the present epoch.",
  reverse: "Whether there is a way back once new takes the writes.",
  approvals: "People who have approved the next phase, and how many the plan asks for.",
};

const MARK = { pass: "✓", fail: "✗", unknown: "?" } as const;

export function Gates({ status }: { readonly status: Status }) {
  const next = status.phase === "unknown" ? undefined : PHASES[phaseIndex(status.phase) + 1];
  const open = status.gates.filter((gate) => gate.state !== "pass").length;
  const title = next === undefined ? "Gates" : `Gates into ${next}`;
  return (
    <Card
      title={title}
      id="gates"
      aside={
        status.gates.length > 0 && (
          <span class={`pill ${open === 0 ? "well" : "attention"}`}>
            {open === 0 ? "✓ all pass" : `${open} of ${status.gates.length} in the way`}
          </span>
        )
      }
    >
      {status.gates.length === 0 ? (
        <p class="soft">
          {next === undefined ? "This is the last phase." : `Nothing has to be met before ${next}.`}
        </p>
      ) : (
        <GateList gates={status.gates} />
      )}
    </Card>
  );
}

/** Every gate with value, limit and reason. */
export function GateList({ gates }: { readonly gates: readonly Gate[] }) {
  return (
    <ul class="gates">
      {gates.map((gate) => (
        <li key={gate.name} class={gate.state}>
          <span class="mark" aria-hidden="true">
            {MARK[gate.state]}
          </span>
          <div>
            <strong>{gate.name}</strong> <span class="state">{gate.state}</span>
            <p>
              <Explained why={`${MEANING[gate.name] ?? gate.name} This is its value now.`}>
                {gate.value ?? "no value yet"}
              </Explained>
              {gate.limit !== null && (
                <Explained why={`What the gate asks for: ${gate.limit}.`} class="soft">
                  limit {gate.limit}
                </Explained>
              )}
            </p>
            {gate.why !== null && <p class="why">{gate.why}</p>}
          </div>
        </li>
      ))}
    </ul>
  );
}
