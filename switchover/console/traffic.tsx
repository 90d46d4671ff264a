import type { ShadowGroup } from "../../store/control/shadow-report.ts";
import type { Status } from "../status.ts";
import { Card, Explained, Fact } from "./explain.tsx";
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
      <dl class="row">
        <Fact
          name="Compared"
          why="Reads whose answers of both apps were compared, since the phase shadow was entered."
        >
          {count(samples)}
        </Fact>
        <Fact
          name="Different"
          why="Reads that both apps answered differently, also after the mirror had caught up."
        >
          {count(mismatches)}
        </Fact>
        <Fact
          name="Noise"
          why="Different only where the old app also differs from itself, such as clocks and random ids. Not counted against new."
        >
          {count(noise)}
        </Fact>
        <Fact
          name="In flight"
          why="Different at first and the same once the mirror had caught up. Not counted against new."
        >
          {count(in_flight)}
        </Fact>
        <Fact
          name="No verdict"
          why="Different at first, and no fence passed in time to tell whether a write was under way: the mirror is behind, or quarantined keys hold fences back. Too many block the gate."
        >
          {count(unjudged)}
        </Fact>
        <Fact
          name="Not compared"
          why="Too large, not to be decoded, or not taken because enough others were under way."
        >
          {count(skipped + dropped)}
        </Fact>
      </dl>
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
