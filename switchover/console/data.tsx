import type { Status, TableStatus } from "../status.ts";
import { Card, Explained, Facts } from "./explain.tsx";
import { count, ms, percent, plural, seconds, since } from "./format.ts";
import { keysPerSecond, now } from "./state.ts";

/** What happens to the rows: mirror, backfill, verify. */

export function Mirror({ status }: { readonly status: Status }) {
  const { mirror } = status;
  const speed = keysPerSecond.value;
  return (
    <Card title="Mirror" id="mirror" aside={<State value={mirror.state} well="running" />}>
      {mirror.why !== null && <p class="why">{mirror.why}</p>}
      <Facts
        of={[
          [
            "Direction",
            mirror.direction,
            "Forward carries changes of old to new, reverse those of new to old. It follows the authority.",
          ],
          [
            "Lag",
            ms(mirror.lag_ms),
            "The age of the oldest change that is not on the other side yet. 0 when everything is carried over.",
          ],
          [
            "Speed",
            speed === null ? "unknown" : `${count(Math.round(speed))} keys/s`,
            "Keys of changed rows synced per second, measured over the last two seconds.",
          ],
          [
            "Synced",
            `${count(mirror.keys)} keys, ${count(mirror.passes)} passes`,
            "Keys of changed rows synced since this mirror started, and in how many passes. Hot rows count once a pass.",
          ],
          [
            "Deferred",
            count(mirror.deferred),
            "Keys that wait for another row, such as the parent of a foreign key. They are tried again by themselves.",
          ],
        ]}
      />
    </Card>
  );
}

export function Backfill({ status }: { readonly status: Status }) {
  const { state, throttle, rows_per_s, tables } = status.backfill;
  return (
    <Card title="Backfill" id="backfill" aside={<State value={state} well="done" />}>
      {throttle !== null && (
        <p class="warn">
          <Explained why="The backfill slows itself down so that the app does not notice it. This is what it reacts to now.">
            ! throttled: {throttle}
          </Explained>
        </p>
      )}
      {tables.length === 0 ? (
        <p class="soft">No table is planned yet: the phase backfill does that.</p>
      ) : (
        <>
          {state === "running" && (
            <Facts
              of={[
                [
                  "Speed",
                  `${count(Math.round(rows_per_s))} rows/s`,
                  "Rows copied per second by all workers together.",
                ],
              ]}
            />
          )}
          <ul class="tables">
            {tables.map((table) => (
              <Table key={table.table} table={table} />
            ))}
          </ul>
        </>
      )}
    </Card>
  );
}

function Table({ table }: { readonly table: TableStatus }) {
  const share = table.chunks === 0 ? 1 : table.done / table.chunks;
  const left =
    table.failed > 0
      ? `✗ ${table.failed} failed`
      : table.done === table.chunks
        ? "✓ done"
        : table.eta_s === null
          ? "time left unknown"
          : `${seconds(table.eta_s)} left`;
  return (
    <li>
      <span class="name">{table.table}</span>
      <Explained
        why={`${table.done} of ${table.chunks} chunks and ${plural(table.rows, "row")} of ${table.table} are copied. The time left follows from the speed so far.`}
      >
        {percent(share)} · {left}
      </Explained>
      <progress
        max={table.chunks}
        value={table.done}
        aria-label={`${table.table}: chunks copied`}
      />
      <span class="soft">{plural(table.rows, "row")}</span>
    </li>
  );
}

export function Verify({ status }: { readonly status: Status }) {
  const { verify } = status;
  return (
    <Card title="Verify" id="verify" aside={<State value={verify.state} well="clean" />}>
      {verify.why !== null && <p class="why">{verify.why}</p>}
      <Facts
        of={[
          [
            "Last clean",
            verify.clean_at === null ? "never yet" : `${since(verify.clean_at, now.value)} ago`,
            "How long ago a comparison of every row of every table found no difference.",
          ],
          [
            "Missing",
            count(verify.missing),
            "Rows that the target should have and had not, in the last comparison.",
          ],
          [
            "Extra",
            count(verify.extra),
            "Rows that the target had and should not have, in the last comparison.",
          ],
          [
            "Different",
            count(verify.different),
            "Rows that both sides had, with other values than the mapping gives.",
          ],
        ]}
      />
    </Card>
  );
}

function State({ value, well }: { readonly value: string; readonly well: string }) {
  const level =
    value === well ? "well" : ["failed", "dirty", "absent"].includes(value) ? "trouble" : "";
  const mark = level === "well" ? "✓ " : level === "trouble" ? "✗ " : "";
  return (
    <span class={`pill ${level}`}>
      {mark}
      {value}
    </span>
  );
}
