import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { isPhase, phaseIndex, PHASES } from "../../config/words.ts";
import { REQUEST_KEYS } from "./tune-keys.ts";
import type { WalkResult, WalkStep } from "../walk.ts";
import { advanceDialog, dialog, run } from "./actions.ts";
import { field } from "./form.ts";
import { GateList } from "./gates.tsx";
import { effectMeaning } from "../effect-meaning.ts";
import { mustBeTyped } from "./meaning.ts";
import { session, status } from "./state.ts";

/** What is asked before something is done. The browser's own dialog: it keeps the focus and closes with Escape. */

const close = () => {
  dialog.value = null;
};

export function Dialogs() {
  const open = dialog.value;
  if (open === null) return null;
  switch (open.kind) {
    case "advance":
      return <AdvanceDialog preview={open.preview} />;
    case "drill":
      return <DrillDialog />;
    case "verify":
      return <VerifyDialog />;
    case "tune":
      return <TuneDialog />;
    case "approve":
      return <ApproveDialog />;
    case "accept":
      return (
        <AcceptDialog id={open.key.id} name={`${open.key.mapping} ${open.key.key.join(", ")}`} />
      );
  }
}

function Frame({
  title,
  action,
  allowed = true,
  onAct,
  children,
}: {
  readonly title: string;
  readonly action: string | undefined;
  readonly allowed?: boolean;
  readonly onAct: (form: FormData) => void;
  readonly children: ComponentChildren;
}) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => element.current?.showModal(), []);
  return (
    <dialog ref={element} aria-labelledby="dialog-title" onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!allowed) return;
          const form = new FormData(event.currentTarget);
          close();
          onAct(form);
        }}
      >
        <h2 id="dialog-title">{title}</h2>
        {children}
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          {action !== undefined && (
            <button type="submit" class="advance" disabled={!allowed}>
              {action}
            </button>
          )}
        </footer>
      </form>
    </dialog>
  );
}

function AdvanceDialog({ preview }: { readonly preview: WalkResult | string | undefined }) {
  const [typed, setTyped] = useState("");
  const [noWayBack, setNoWayBack] = useState(false);
  if (preview === undefined || typeof preview === "string") {
    return (
      <Frame title="Advance" action={undefined} onAct={close}>
        <p role="status">{preview ?? "Asking for a dry run…"}</p>
      </Frame>
    );
  }
  const last = preview.steps.at(-1);
  if (last === undefined) {
    return (
      <Frame title="Advance" action={undefined} onAct={close}>
        <p>{preview.why ?? "There is nothing to do."}</p>
      </Frame>
    );
  }
  const { phase, canary_step, epoch } = preview;
  const entered = preview.steps.map((step) => step.to).filter((phase) => phase !== preview.phase);
  const grave = entered.flatMap((phase) => mustBeTyped(phase) ?? []);
  const blocking = preview.steps
    .flatMap((step) => step.gates ?? [])
    .filter((gate) => gate.state !== "pass");
  const oneWay = blocking.some((gate) => gate.name === "reverse");
  const waiting = blocking.length > 0;
  const allowed = (grave.length === 0 || typed.trim() === last.to) && (!oneWay || noWayBack);
  const name = stepName(last);
  return (
    <Frame
      title={`Advance to ${name}`}
      action={waiting ? `Wait for the gates, then advance` : `Advance to ${name}`}
      allowed={allowed}
      onAct={() =>
        void run(
          "advance",
          {
            to: entered.at(-1),
            // Whoever confirms has seen this: if somebody else was faster, it is refused and not taken one step further.
            from: { phase, canary_step, epoch },
            wait: waiting,
            noWayBack: oneWay && noWayBack,
          },
          `Advance to ${name}`,
        )
      }
    >
      <TargetChoice chosen={last.to} />
      <p class="soft">A dry run, nothing has changed yet. This is what would happen:</p>
      <ol class="steps">
        {preview.steps.map((step) => (
          <Preview key={`${step.to} ${step.canary_step}`} step={step} />
        ))}
      </ol>
      {oneWay && (
        <label class="check">
          <input
            type="checkbox"
            checked={noWayBack}
            onChange={(event) => setNoWayBack(event.currentTarget.checked)}
          />
          There is no reverse mapping: I know that there is no way back.
        </label>
      )}
      {grave.length > 0 && (
        <div class="grave">
          {grave.map((text) => (
            <p key={text}>{text}</p>
          ))}
          <label>
            <span>
              Type <strong>{last.to}</strong> to confirm
            </span>
            <input
              name="confirm"
              autocomplete="off"
              autocapitalize="off"
              spellcheck={false}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          </label>
        </div>
      )}
    </Frame>
  );
}

function TargetChoice({ chosen }: { readonly chosen: string }) {
  const phase = status.value?.phase;
  if (phase === undefined || phase === "unknown") return null;
  const targets = PHASES.slice(phaseIndex(phase) + 1);
  if (targets.length < 2 && targets[0] === chosen) return null;
  return (
    <label class="inline">
      Up to{" "}
      <select
        value={chosen}
        onChange={({ currentTarget: { value } }) => isPhase(value) && void advanceDialog(value)}
      >
        {phase === "canary" && <option value="canary">canary, next step</option>}
        {targets.map((target) => (
          <option key={target}>{target}</option>
        ))}
      </select>
    </label>
  );
}

function stepName(step: WalkStep): string {
  return step.to === "canary" ? `canary step ${step.canary_step ?? 1}` : step.to;
}

function Preview({ step }: { readonly step: WalkStep }) {
  return (
    <li>
      <strong>
        {step.from} → {stepName(step)}
      </strong>
      <ul class="effects">
        {step.effects?.map((effect) => (
          <li key={JSON.stringify(effect)}>{effectMeaning(effect)}</li>
        ))}
      </ul>
      {step.gates !== undefined && step.gates.length > 0 && (
        <details open={step.gates.some((gate) => gate.state !== "pass")}>
          <summary>
            {step.gates.filter((gate) => gate.state === "pass").length} of {step.gates.length} gates
            pass now
          </summary>
          <GateList gates={step.gates} />
        </details>
      )}
    </li>
  );
}

function DrillDialog() {
  return (
    <Frame title="Drill" action="Start the drill" onAct={() => void run("drill", {}, "Drill")}>
      <p>
        A flip is rehearsed under live traffic and undone before its decision. Writes wait for some
        milliseconds, none fails, and everything ends where it began. Its receipt says how long they
        waited.
      </p>
    </Frame>
  );
}

function VerifyDialog() {
  return (
    <Frame
      title="Verify"
      action="Compare now"
      onAct={(form) => {
        const table = field(form, "table");
        const repair = form.get("repair") === "on";
        const tables = table === "" ? {} : { tables: [table] };
        void run("verify", { repair, ...tables }, repair ? "Verify and repair" : "Verify");
      }}
    >
      <p>
        Every mapped row of both sides is compared. It reads; only a repair writes, to the follower.
      </p>
      <label>
        Table
        <select name="table">
          <option value="">all tables</option>
          {status.value?.backfill.tables.map(({ table }) => (
            <option key={table}>{table}</option>
          ))}
        </select>
      </label>
      <label class="check">
        <input type="checkbox" name="repair" /> Repair: sync the rows that differ
      </label>
    </Frame>
  );
}

function TuneDialog() {
  return (
    <Frame
      title="Tune"
      action="Apply"
      onAct={(form) => {
        const text = field(form, "value");
        const key = field(form, "key");
        const value = text === "" ? null : Number(text);
        void run("tune", { key, value }, `Tune ${key}`);
      }}
    >
      <p>
        A throttle of the backfill, changed while it runs. Leave the value empty to go back to the
        plan.
      </p>
      <label>
        Throttle
        <select name="key">
          {REQUEST_KEYS.map(({ key, meaning }) => (
            <option key={key} value={key}>
              {key}: {meaning}
            </option>
          ))}
        </select>
      </label>
      <label>
        Value
        <input name="value" inputMode="decimal" pattern="[0-9]*\.?[0-9]*" autocomplete="off" />
      </label>
    </Frame>
  );
}

function ApproveDialog() {
  const phase = status.value?.phase;
  const targets =
    phase === undefined || phase === "unknown"
      ? PHASES.slice(1)
      : PHASES.slice(phaseIndex(phase) + 1);
  return (
    <Frame
      title="Approve a phase"
      action="Approve"
      onAct={(form) => {
        const reason = field(form, "reason");
        const args = { phase: field(form, "phase"), as: field(form, "as") };
        void run(
          "approve",
          reason === "" ? args : { ...args, reason },
          `Approval of ${args.phase}`,
        );
      }}
    >
      <p>An approval is for one entry into the phase and stands in the timeline with your name.</p>
      <label>
        Phase
        <select name="phase">
          {targets.map((target) => (
            <option key={target}>{target}</option>
          ))}
        </select>
      </label>
      <NameAndReason reasonNeeded={false} />
    </Frame>
  );
}

function AcceptDialog({ id, name }: { readonly id: string; readonly name: string }) {
  return (
    <Frame
      title={`Accept the loss of ${name}`}
      action="Accept the loss"
      onAct={(form) =>
        void run(
          "quarantine-accept",
          { id, as: field(form, "as"), reason: field(form, "reason") },
          `Loss of ${name}`,
        )
      }
    >
      <p>
        This row stays behind when the authority moves. That stands in the timeline with your name
        and your reason. A later change of the row still syncs it.
      </p>
      <NameAndReason reasonNeeded={true} />
    </Frame>
  );
}

function NameAndReason({ reasonNeeded }: { readonly reasonNeeded: boolean }) {
  return (
    <>
      <label>
        Your name
        <input
          name="as"
          required
          autocomplete="name"
          pattern=".*\S.*"
          readOnly={session.value?.name != null}
          value={session.value?.name ?? undefined}
        />
      </label>
      <label>
        Reason{reasonNeeded ? "" : " (may be empty)"}
        <input name="reason" required={reasonNeeded} autocomplete="off" />
      </label>
    </>
  );
}
