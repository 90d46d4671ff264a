import { signal } from "@preact/signals";
import { Card, Explained } from "./explain.tsx";
import { clock, ms, plural } from "./format.ts";
import { may, now, quarantine, status, timeline } from "./state.ts";
import type { DatedReceipt, TimelineEntry } from "./state.ts";
import { acceptDialog, run } from "./actions.ts";
import { since } from "./format.ts";

/** What was left behind, and what has happened. */

export function Quarantine() {
  const keys = quarantine.value;
  return (
    <Card
      title="Quarantine"
      id="quarantine"
      wide
      aside={
        keys.length > 0 &&
        may("operator") && (
          <button
            type="button"
            onClick={() => void run("quarantine-retry", {}, "Retry of all keys")}
          >
            Retry all
          </button>
        )
      }
    >
      {keys.length === 0 ? (
        <p class="soft">{emptyMeaning()}</p>
      ) : (
        <>
          <p class="soft">
            {keys.some((key) => key.state !== "accepted")
              ? "While one is open no fence passes: clients who have written read from the authority, shadow reads that differ get no verdict, and no flip or drill succeeds."
              : "Their loss is accepted: they hold nothing up, and stay as they are on the other side."}
          </p>
          <ul class="rows quarantine">
            {keys.map((key) => (
              <li key={key.id}>
                <div>
                  <span class="name">
                    {key.mapping} <code>{key.key.join(", ")}</code>
                  </span>{" "}
                  <span class="pill">{key.state}</span>
                  <p class="why">{key.reason}</p>
                  <p class="soft">
                    from {key.source_table} ·{" "}
                    <Explained why="How often syncing this key was tried. A later change of the row tries it again by itself.">
                      {plural(key.attempts, "attempt")}
                    </Explained>
                    {key.sqlstate === null ? "" : ` · SQLSTATE ${key.sqlstate}`}
                  </p>
                </div>
                <span class="buttons">
                  {may("operator") && (
                    <button
                      type="button"
                      aria-label={`Retry ${key.mapping} ${key.key.join(", ")}`}
                      onClick={() =>
                        void run(
                          "quarantine-retry",
                          { ids: [key.id] },
                          `Retry of ${key.mapping} ${key.key.join(", ")}`,
                        )
                      }
                    >
                      Retry
                    </button>
                  )}
                  {may("approver") && key.state !== "accepted" && (
                    <button
                      type="button"
                      aria-label={`Accept loss… of ${key.mapping} ${key.key.join(", ")}`}
                      onClick={() => acceptDialog(key)}
                    >
                      Accept loss…
                    </button>
                  )}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </Card>
  );
}

function emptyMeaning(): string {
  const { phase, authority } = status.value ?? {};
  if (phase === "off") return "Nothing is mirrored yet.";
  if (phase === "done")
    return "Nothing is mirrored any more. The timeline says whose loss was accepted, and by whom.";
  return `Empty: every row of ${authority} could be carried over.`;
}

const SHOWN = 12;
const shown = signal(SHOWN);

export function Timeline() {
  const newest = timeline.value.toReversed();
  return (
    <Card title="Timeline" id="timeline" wide>
      {newest.length === 0 && <p class="soft">Nothing has happened yet.</p>}
      <ol class="timeline">
        {newest.slice(0, shown.value).map((entry) => (
          <Entry key={entry.id} entry={entry} />
        ))}
      </ol>
      {newest.length > shown.value && (
        <button type="button" class="quiet" onClick={() => (shown.value += 50)}>
          Show {Math.min(50, newest.length - shown.value)} more
        </button>
      )}
    </Card>
  );
}

function Entry({ entry }: { readonly entry: TimelineEntry }) {
  const receipt = receiptOf(entry);
  return (
    <li>
      <time dateTime={entry.at} title={new Date(entry.at).toLocaleString()}>
        {clock(entry.at)}
      </time>
      <div>
        <strong>{entry.kind}</strong> {describe(entry)}
        <span class="soft">
          {" "}
          by {entry.by} · {since(entry.at, now.value)} ago
        </span>
        {receipt !== undefined && <ReceiptDetails receipt={receipt} />}
      </div>
    </li>
  );
}

function describe({ kind, detail }: TimelineEntry): string {
  const text = (name: string) => {
    const value = detail[name];
    return typeof value === "string" || typeof value === "number" ? String(value) : "";
  };
  switch (kind) {
    case "phase": {
      const share = Number(detail["reads_new"] ?? 0);
      const reads = text("to") === "canary" ? `, ${Math.round(share * 1000) / 10} % of reads` : "";
      return `${text("from")} → ${text("to")}${reads}`;
    }
    case "flip":
    case "drill":
    case "rollback":
      return `${text("from")} → ${text("to")}: ${detail["ok"] === true ? "ok" : `undone, ${text("why")}`}`;
    case "verify":
      return `${text("state")}, ${text("rows")} rows${text("why") === "" ? "" : `: ${text("why")}`}`;
    case "refused":
      return `${text("command")}: ${text("why")}`;
    case "denied":
      return `${text("method")} ${text("path")}: ${text("why")}`;
    case "approve":
      return `${text("phase")}${text("reason") === "" ? "" : `, ${text("reason")}`}`;
    case "tune":
      return `${text("key")} = ${detail["value"] === null ? "as planned" : text("value")}`;
    case "pause":
    case "resume":
      return text("what");
    case "quarantine-retry":
      return `${text("tried")} tried, ${text("left")} left`;
    case "quarantine-accept":
      return `${text("mapping")} ${text("key")}: ${text("reason")}`;
    default:
      return text("why");
  }
}

/** Flips, drills and rollbacks carry their receipt in the timeline. */
function receiptOf(entry: TimelineEntry): DatedReceipt | undefined {
  if (!["flip", "drill", "rollback"].includes(entry.kind)) return undefined;
  if (!Array.isArray(entry.detail["steps"])) return undefined;
  return { ...(entry.detail as unknown as DatedReceipt), at: entry.at };
}

function ReceiptDetails({ receipt }: { readonly receipt: DatedReceipt }) {
  const { hold_ms: hold, writes_held: held, failed, steps, epoch } = receipt;
  return (
    <details class="receipt">
      <summary>
        Receipt:{" "}
        {held === null || hold === null
          ? "no sidecar measured the hold"
          : `${plural(held, "write")} held, longest ${ms(hold.max)}, ${failed ?? "unknown"} failed`}
      </summary>
      <table>
        <caption class="hidden">Steps of this {receipt.kind}</caption>
        <tbody>
          {hold !== null && (
            <tr>
              <th scope="row">hold, p50 / p99 / longest</th>
              <td>
                {ms(hold.p50)} / {ms(hold.p99)} / {ms(hold.max)}
              </td>
            </tr>
          )}
          <tr>
            <th scope="row">epoch afterwards</th>
            <td>{epoch}</td>
          </tr>
          {steps.map((step) => (
            <tr key={step.name}>
              <th scope="row">{step.name}</th>
              <td>{ms(step.ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
