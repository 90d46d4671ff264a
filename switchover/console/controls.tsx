import { useState } from "preact/hooks";
import { isPhase, phaseIndex, PHASES } from "../../config/words.ts";
import type { Phase } from "../../config/words.ts";
import type { Status } from "../status.ts";
import { advanceDialog, dialog, dismiss, notices, run, running, waysBack } from "./actions.ts";
import { Explained } from "./explain.tsx";
import { may } from "./state.ts";

/** The bar of what can be done now. Going back is always there, and never asks. */

export function Controls({ status }: { readonly status: Status }) {
  const operator = may("operator");
  const installed = status.phase !== "off" && status.phase !== "done";
  return (
    <section class="controls" aria-label="Actions">
      <div class="main">
        {operator && <Rollback />}
        {operator && <Advance status={status} />}
      </div>
      <div class="others">
        {operator && installed && (
          <>
            <Opens kind="drill">Drill…</Opens>
            <Opens kind="verify">Verify…</Opens>
            <PauseButton status={status} what="mirror" />
            <PauseButton status={status} what="backfill" />
            <Opens kind="tune">Tune…</Opens>
          </>
        )}
        {may("approver") && status.phase !== "done" && <Opens kind="approve">Approve…</Opens>}
        {!operator && <span class="soft">The role viewer looks; operators act.</span>}
      </div>
    </section>
  );
}

function Rollback() {
  const ways = waysBack();
  const [wanted, setWanted] = useState<Phase | undefined>();
  if (typeof ways === "string") {
    return (
      <Explained why={ways} class="button rollback off">
        ← Roll back
      </Explained>
    );
  }
  // The choice made in an earlier phase may not exist any more.
  const to = wanted !== undefined && ways.includes(wanted) ? wanted : ways[0];
  if (to === undefined) return null;
  return (
    <span class="joined">
      <button
        type="button"
        class="rollback"
        onClick={() => {
          setWanted(undefined);
          // A mirror that is behind for a moment, as right after a flip, must not send anybody away.
          void run("rollback", { to, wait: true }, `Rollback to ${to}`);
        }}
      >
        ← Roll back to {to}
      </button>
      {ways.length > 1 && (
        <select
          aria-label="Phase to roll back to"
          value={to}
          onChange={({ currentTarget: { value } }) => isPhase(value) && setWanted(value)}
        >
          {ways.map((phase) => (
            <option key={phase}>{phase}</option>
          ))}
        </select>
      )}
    </span>
  );
}

function Advance({ status }: { readonly status: Status }) {
  if (status.phase === "unknown" || status.phase === "done") return null;
  const next = PHASES[phaseIndex(status.phase) + 1];
  return (
    <button type="button" class="advance" onClick={() => void advanceDialog()}>
      {status.phase === "canary" ? (
        "Advance…"
      ) : (
        <>
          Advance<span class="if-wide"> to {next}</span>…
        </>
      )}
    </button>
  );
}

function Opens({
  kind,
  children,
}: {
  readonly kind: "drill" | "verify" | "tune" | "approve";
  readonly children: string;
}) {
  return (
    <button type="button" onClick={() => (dialog.value = { kind })}>
      {children}
    </button>
  );
}

function PauseButton({
  status,
  what,
}: {
  readonly status: Status;
  readonly what: "mirror" | "backfill";
}) {
  const paused = status.paused[what];
  const failed = what === "backfill" && status.backfill.state === "failed";
  const kind = paused || failed ? "resume" : "pause";
  const name = `${kind === "pause" ? "Pause" : "Resume"} ${what}`;
  return (
    <button type="button" onClick={() => void run(kind, { what }, name)}>
      {name}
    </button>
  );
}

/** What runs, and how the last commands ended. */
export function Notices() {
  return (
    <div class="notices">
      <div role="status">
        {[...running.value].map(([id, name]) => (
          <p key={id} class="notice running">
            <span class="spinner" aria-hidden="true" /> {name}: running
          </p>
        ))}
        {notices.value
          .filter((notice) => notice.level === "well")
          .map((notice) => (
            <p key={notice.id} class="notice well">
              <span>✓ {notice.text}</span>
              <button
                type="button"
                class="quiet"
                aria-label="Dismiss"
                onClick={() => dismiss(notice.id)}
              >
                ×
              </button>
            </p>
          ))}
      </div>
      <div role="alert">
        {notices.value
          .filter((notice) => notice.level === "trouble")
          .map((notice) => (
            <div key={notice.id} class="notice trouble">
              <p>✗ {notice.text}</p>
              {notice.hint !== undefined && <p class="soft">{notice.hint}</p>}
              <button type="button" class="quiet" onClick={() => dismiss(notice.id)}>
                Dismiss
              </button>
            </div>
          ))}
      </div>
    </div>
  );
}
