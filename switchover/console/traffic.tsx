import type { ShadowGroup } from "../../store/control/shadow-report.ts";
import type { Status } from "../status.ts";
import { Card, Explained, Facts } from "./explain.tsx";
import { count, ms, percent, plural } from "./format.ts";

/** What the sidecars see: themselves, and how the answers of both apps compare. */

export function Sidecars({ status }: { readonly status: Status }) {
  const { sidecars } = status;
  return (
    <Card title="Sidecars" id="sidecars" wide aside={<span class="pill">{sidecars.length}</span>}>
      {sidecars.length === 0 ? (
        <p class="soft">None is registered. `crossfade up` or `crossfade proxy` starts one.</p>
      ) : (
        <ul class="rows">
          {sidecars.map((sidecar) => {
            const late = sidecar.seen_ms > 5_000 || sidecar.epoch !== status.epoch;
            return (
              <li key={sidecar.id}>
                <span class="name">{sidecar.id}</span>
                <Explained why="The epoch it routes by. It must be the migration's before authority can move again.">
                  epoch {sidecar.epoch}
                </Explained>
                <Explained why="How long ago its last heartbeat came. After 5 s it counts as unseen.">
                  {late ? "! " : ""}seen {ms(sidecar.seen_ms)} ago
                </Explained>
                {sidecar.holding && <span class="pill attention">holding writes</span>}
                {sidecar.new_app_down && <span class="pill trouble">✗ new app away</span>}
              </li>
            );
          })}
        </ul>
      )}
    </Card>
  );
}

export function Shadow({ status }: { readonly status: Status }) {
  const { samples, mismatches, noise, in_flight, unjudged, skipped, dropped, groups } =
    status.shadow;
  return (
    <Card
      title="Shadow reads"
      id="shadow"
      wide
      aside={samples > 0 && <Share of={mismatches} all={samples} />}
    >
      <Facts
        row
        of={[
          [
            "Compared",
            count(samples),
            "Reads whose answers of both apps were compared, since the phase shadow was entered.",
          ],
          [
            "Different",
            count(mismatches),
            "Reads that both apps answered differently, also after the mirror had caught up.",
          ],
          [
            "Noise",
            count(noise),
            "Different only where the old app also differs from itself, such as clocks and random ids. Not counted against new.",
          ],
          [
            "In flight",
            count(in_flight),
            "Different at first and the same once the mirror had caught up. Not counted against new.",
          ],
          [
            "No verdict",
            count(unjudged),
            "Different at first, and no fence passed in time to tell whether a write was under way: the mirror is behind, or quarantined keys hold fences back. Too many block the gate.",
          ],
          [
            "Not compared",
            count(skipped + dropped),
            "Too large, not to be decoded, or not taken because enough others were under way.",
          ],
        ]}
      />
      {groups.map((group) => (
        <Mismatch key={`${group.route} ${group.path}`} group={group} />
      ))}
    </Card>
  );
}

function Share({ of, all }: { readonly of: number; readonly all: number }) {
  return (
    <span class={`pill ${of === 0 ? "well" : "attention"}`}>
      {of === 0 ? "✓ no difference" : `${percent(of / all)} different`}
    </span>
  );
}

function Mismatch({
  group: { route, path, count: times, example },
}: {
  readonly group: ShadowGroup;
}) {
  return (
    <details class="mismatch">
      <summary>
        <code>{route}</code> at <code>{path}</code> · {plural(times, "read")}
      </summary>
      <p class="soft">
        An example, redacted: <code>{example.request}</code>
      </p>
      <div class="sides">
        <figure>
          <figcaption>
            <i class="key old" aria-hidden="true" /> old, status {example.statuses.old}
          </figcaption>
          <pre>{example.old}</pre>
        </figure>
        <figure>
          <figcaption>
            <i class="key new" aria-hidden="true" /> new,{" "}
            {example.statuses.new === null ? "no answer" : `status ${example.statuses.new}`}
          </figcaption>
          <pre>{example.new}</pre>
        </figure>
      </div>
    </details>
  );
}
