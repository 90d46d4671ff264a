import { NO_SHADOW } from "../store/control/shadow-report.ts";
import type { ShadowGroup, ShadowReport } from "../store/control/shadow-report.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";

/** Shadow reads of all sidecars together: counts added up, groups of one route and path joined, the largest first. */
export function sumShadow(sidecars: readonly Pick<SidecarSeen, "stats">[]): ShadowReport {
  const reports = sidecars.map(({ stats }) => stats.shadow ?? NO_SHADOW);
  const sum = (of: (report: ShadowReport) => number) =>
    reports.reduce((total, report) => total + of(report), 0);
  return {
    samples: sum((report) => report.samples),
    mismatches: sum((report) => report.mismatches),
    noise: sum((report) => report.noise),
    in_flight: sum((report) => report.in_flight),
    unjudged: sum((report) => report.unjudged),
    skipped: sum((report) => report.skipped),
    dropped: sum((report) => report.dropped),
    groups: joinGroups(reports.flatMap((report) => report.groups)),
    noise_paths: distinct(reports.flatMap((report) => report.noise_paths)),
  };
}

function joinGroups(groups: readonly ShadowGroup[]): ShadowGroup[] {
  const joined = new Map<string, ShadowGroup>();
  for (const group of groups) {
    const key = `${group.route} ${group.path}`;
    const before = joined.get(key);
    joined.set(
      key,
      before === undefined ? group : { ...before, count: before.count + group.count },
    );
  }
  return [...joined.values()].toSorted((a, b) => b.count - a.count);
}

function distinct(paths: ShadowReport["noise_paths"]): ShadowReport["noise_paths"] {
  return [...new Map(paths.map((each) => [`${each.route} ${each.path}`, each])).values()];
}
