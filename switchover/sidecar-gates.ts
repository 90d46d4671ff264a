import type { SidecarSeen } from "../store/control/sidecars.ts";
import { FRESH_MS } from "./gate-facts.ts";
import type { GateFacts, GateLimits, GateResult } from "./gate-facts.ts";
import { sumShadow } from "./shadow.ts";
import { span } from "./spans.ts";

/** Gates about what sidecars report. Pure. */

/** What a sidecar that was not seen for long has counted may be of an earlier stay in the phase. */
export function shadowGate({ sidecars }: GateFacts, { shadow: limits }: GateLimits): GateResult {
  const limit = `at least ${limits.samples} reads, at most ${percent(limits.mismatch)} different`;
  const gate = { name: "shadow", limit } as const;
  if (limits.sample === 0) {
    const why = "not required: shadow.sample is 0%";
    return { ...gate, state: "pass", value: null, limit: null, why, heals: "never" };
  }
  const { samples, mismatches, unjudged, groups } = sumShadow(liveSidecars({ sidecars }));
  const value = `${mismatches} of ${samples} reads different`;
  if (samples < limits.samples) {
    const why = "too few reads were compared to say";
    const all = unjudged === 0 ? why : `${why}; ${withoutVerdict(unjudged)}`;
    return { ...gate, state: "unknown", value, samples, why: all, heals: "by-waiting" };
  }
  if (mismatches + unjudged <= (samples + unjudged) * limits.mismatch)
    return {
      ...gate,
      state: "pass",
      value,
      samples,
      why:
        mismatches === 0
          ? "both apps answer alike"
          : "what differs is within what the plan allows: look at it before going on",
      heals: "never",
    };
  if (mismatches <= samples * limits.mismatch) {
    const why = withoutVerdict(unjudged);
    return { ...gate, state: "unknown", value, samples, why, heals: "by-waiting" };
  }
  const most = groups[0] === undefined ? "" : `mostly ${groups[0].route} at ${groups[0].path}; `;
  const why = `${most}see \`crossfade status --json\`; repair the new app, then \`rollback --to verify\` and back counts anew`;
  return { ...gate, state: "fail", value, samples, why, heals: "never" };
}

function withoutVerdict(unjudged: number): string {
  return `${unjudged} more differed and no fence passed in time to judge them: the mirror is behind, or quarantined keys hold fences back`;
}

export function liveSidecars({ sidecars }: Pick<GateFacts, "sidecars">): readonly SidecarSeen[] {
  return sidecars.filter((sidecar) => sidecar.seenMs <= FRESH_MS);
}

export function sidecarsGate({ sidecars, migration }: GateFacts): GateResult {
  const gate = {
    name: "sidecars",
    limit: `all seen within ${span(FRESH_MS)}, at epoch ${migration.epoch}`,
  } as const;
  const blocked = (state: "fail" | "unknown", why: string): GateResult => {
    return {
      ...gate,
      state,
      value: `${ready.length} of ${sidecars.length}`,
      why,
      heals: "by-waiting",
    };
  };
  const ready = sidecars.filter(
    (sidecar) => sidecar.seenMs <= FRESH_MS && sidecar.epoch === migration.epoch,
  );
  if (sidecars.length === 0)
    return blocked("unknown", "no sidecar is registered: traffic would not follow");
  const unseen = sidecars.find((sidecar) => sidecar.seenMs > FRESH_MS);
  if (unseen !== undefined)
    return blocked("fail", `sidecar ${unseen.id} was last seen ${span(unseen.seenMs)} ago`);
  const behind = sidecars.find((sidecar) => sidecar.epoch !== migration.epoch);
  if (behind !== undefined)
    return blocked("fail", `sidecar ${behind.id} is still at epoch ${behind.epoch}`);
  return {
    ...gate,
    state: "pass",
    value: `${ready.length} of ${sidecars.length}`,
    why: "every sidecar follows",
    heals: "never",
  };
}

function percent(share: number): string {
  return `${Math.round(share * 1e6) / 1e4} %`;
}
