import { PHASES } from "../../config/words.ts";
import type { Phase } from "../../config/words.ts";
import { healthOf } from "../health.ts";
import type { Status } from "../status.ts";
import { Explained } from "./explain.tsx";
import { percent, plural, since } from "./format.ts";
import { PHASE_MEANING } from "./meaning.ts";
import { leave, now, offline, session, statusAt } from "./state.ts";

/** The first five seconds: which migration, how it is, where it stands. */

export function Header({ status }: { readonly status: Status }) {
  const role = session.value?.role;
  return (
    <header class="top">
      <h1>
        <span class="brand">Crossfade</span> {status.plan}
      </h1>
      <Connection />
      <span class="who">
        {session.value?.tokens === true ? `role ${role}` : "no tokens: loopback only"}
        {session.value?.tokens === true && (
          <button type="button" class="quiet" onClick={leave}>
            Log out
          </button>
        )}
      </span>
    </header>
  );
}

function Connection() {
  const why = offline.value;
  const text =
    why === null
      ? "live"
      : `not live: ${why}; this is ${Math.round((now.value - statusAt.value) / 1000)} s old`;
  return (
    <span class={`connection ${why === null ? "well" : "trouble"}`} role="status">
      {why === null ? "● " : "✗ "}
      {text}
    </span>
  );
}

export function VerdictLine({ status }: { readonly status: Status }) {
  const found = healthOf(status);
  const { text, reasons } = found;
  // Nobody should take for well what was well when it was last heard of.
  const stale = offline.value !== null;
  const level = stale && found.level === "well" ? "attention" : found.level;
  const mark = { well: "✓", attention: "!", trouble: "✗" }[level];
  return (
    <section class={`verdict ${level}`} aria-label="Health" role="status">
      <strong>
        <span aria-hidden="true">{mark}</span> {stale ? "Last known: " : ""}
        {text}
      </strong>
      {reasons.length > 0 && (
        <ul>
          {reasons.map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
      {status.controller.doing !== null && (
        <span class="doing">The controller is busy with: {status.controller.doing}</span>
      )}
    </section>
  );
}

export function PhaseTrack({ status }: { readonly status: Status }) {
  const current = PHASES.findIndex((phase) => phase === status.phase);
  const meaning =
    status.phase === "unknown"
      ? "The control store does not answer: where the migration stands is unknown."
      : PHASE_MEANING[status.phase];
  return (
    <section class="track" aria-label="Phases">
      <ol>
        {PHASES.map((phase, i) => (
          <Step key={phase} phase={phase} at={i - current} status={status} />
        ))}
      </ol>
      <p class="meaning">{meaning}</p>
    </section>
  );
}

function Step({
  phase,
  at,
  status,
}: {
  readonly phase: Phase;
  readonly at: number;
  readonly status: Status;
}) {
  const state = at < 0 ? "passed" : at === 0 ? "current" : "ahead";
  const age = status.phase_since === null ? "" : since(status.phase_since, now.value);
  return (
    <li class={state} {...(at === 0 ? { "aria-current": "step" as const } : {})}>
      <span class="dot" aria-hidden="true">
        {state === "passed" ? "✓" : state === "current" ? "●" : ""}
      </span>
      <span class="name">{phase}</span>
      <span class="hidden">, {state}</span>
      {at === 0 && age !== "" && (
        <Explained why={`The migration has been in ${phase} for ${age}.`} class="age">
          {phase === "canary" ? `step ${status.canary_step} · ${age}` : age}
        </Explained>
      )}
    </li>
  );
}

export function WhoAnswers({ status }: { readonly status: Status }) {
  const share = status.reads.new;
  const sides = status.databases;
  const refused = (["old", "new"] as const).flatMap((side) => {
    const database = sides[side];
    return database.reachable && database.refused_writes > 0
      ? [{ side, writes: database.refused_writes }]
      : [];
  });
  return (
    <>
      <div class="answers">
        <h3>Reads</h3>
        <svg
          class="share"
          viewBox="0 0 100 10"
          preserveAspectRatio="none"
          role="img"
          aria-label={`old answers ${percent(1 - share)} of the reads, new ${percent(share)}`}
        >
          <rect class="old" x="0" y="0" width={100 - share * 100} height="10" />
          <rect class="new" x={100 - share * 100} y="0" width={share * 100} height="10" />
        </svg>
        <p class="split">
          <Explained why="The share of reads that the old app answers.">
            <i class="key old" aria-hidden="true" /> old {percent(1 - share)}
          </Explained>
          <Explained why="The share of reads that the new app answers: of clients in canary, of all from read-new on.">
            <i class="key new" aria-hidden="true" /> new {percent(share)}
          </Explained>
        </p>
      </div>
      <div class="answers">
        <h3>Writes</h3>
        <p class="authority">
          <Explained
            why={`The authority: the side that takes writes. The databases themselves refuse mapped writes to the other side. Epoch ${status.epoch} counts how often the authority has moved.`}
          >
            <i class={`key ${status.authority}`} aria-hidden="true" /> {status.authority}
          </Explained>
          <span class="soft">epoch {status.epoch}</span>
        </p>
        {refused.map(({ side, writes }) => (
          <p key={side} class="warn">
            <Explained why="Writes to the side that is not the authority that did not come through the sidecar: a cron job, a console, an app that was forgotten. The guard refused them.">
              ! {plural(writes, "write")} to {side} refused
            </Explained>
          </p>
        ))}
      </div>
    </>
  );
}
