import { percentile } from "../bench.ts";
import type { Receipt } from "../../store/control/history.ts";

/** Ordinary requests: each client reads back what it wrote. */
export interface RequestFindings {
  readonly requests: number;
  readonly failed: number;
  /** Answers that were compared with what their client knew. */
  readonly checked: number;
  readonly stale: number;
}

export interface WriteFindings {
  readonly acknowledged: number;
  /** Acknowledged writes that are not in both schemas at the end. */
  readonly lost: number;
}

export interface SocketFindings {
  readonly connections: number;
  /** Connections that did not open, broke, or closed otherwise than they were asked to. */
  readonly failed: number;
  readonly messages: number;
  readonly lost: number;
  readonly duplicated: number;
  /** Echoes that were not what was sent. */
  readonly damaged: number;
}

export interface EventFindings {
  readonly streams: number;
  /** Streams that were refused, or that broke before their end. */
  readonly failed: number;
  readonly events: number;
  readonly lost: number;
  readonly duplicated: number;
}

export interface UploadFindings {
  readonly uploads: number;
  readonly failed: number;
  readonly megabytes: number;
  /** Uploads whose checksum or length at the app differs from what was sent. */
  readonly mismatched: number;
}

export interface MemorySample {
  /** Seconds since the soak began. */
  readonly at: number;
  readonly mb: number;
}

export interface FlipFindings {
  readonly receipts: readonly Receipt[];
  /** Flips that did not come about, each with what it said: nothing moved. */
  readonly undone: readonly string[];
}

/** What was found out. A part that is undefined was not looked at. */
export interface SoakFindings {
  /** Seconds under flips. */
  readonly seconds: number;
  readonly requests: RequestFindings | undefined;
  readonly writes: WriteFindings | undefined;
  readonly websockets: SocketFindings | undefined;
  readonly events: EventFindings | undefined;
  readonly uploads: UploadFindings | undefined;
  readonly flips: FlipFindings;
  readonly memory: readonly MemorySample[];
  /** Samples that could not be taken: the sidecar's process was gone. */
  readonly unsampled: number;
}

export interface MemoryVerdict {
  readonly samples: number;
  /** Seconds at the beginning that do not count. */
  readonly warm_up: number;
  readonly first_third_mb: number;
  readonly last_third_mb: number;
  readonly limit_mb: number;
  readonly slope_mb_per_minute: number;
  readonly flat: boolean;
}

export interface SoakVerdict {
  readonly ok: boolean;
  /** Everything that is wrong, one sentence each. */
  readonly wrong: readonly string[];
  readonly memory: MemoryVerdict;
}

const WARM_UP_SECONDS = 60;
/** Fewer say nothing about a trend. */
const LEAST_SAMPLES = 30;

/** Nothing that went wrong is no proof if nothing was looked at: every part must have done something, and none may have failed. */
export function judgeSoak(findings: SoakFindings): SoakVerdict {
  const { requests, writes, websockets, events, uploads, flips } = findings;
  const memory = judgeMemory(findings.memory, findings.seconds);
  const ways = new Set(flips.receipts.filter(({ ok }) => ok).map(({ to }) => to));
  const wrong = [
    ...judged("requests", requests, ["requests", "checked"], ["failed", "stale"]),
    ...judged("writes", writes, ["acknowledged"], ["lost"]),
    ...judged(
      "websockets",
      websockets,
      ["connections", "messages"],
      ["failed", "lost", "duplicated", "damaged"],
    ),
    ...judged("events", events, ["streams", "events"], ["failed", "lost", "duplicated"]),
    ...judged("uploads", uploads, ["uploads", "megabytes"], ["failed", "mismatched"]),
    ...(["new", "old"] as const)
      .filter((side) => !ways.has(side))
      .map((side) => `flips: none to ${side}`),
    ...flips.receipts
      .filter(({ failed }) => failed !== null && failed > 0)
      .map(({ to, failed }) => `flips: ${failed} writes failed in one to ${to}`),
    ...(findings.unsampled === 0
      ? []
      : [`memory: the sidecar's process was gone ${findings.unsampled} times`]),
    ...(memory.flat ? [] : [notFlat(memory)]),
  ];
  return { ok: wrong.length === 0, wrong, memory };
}

/** Which counts of a part are 0 and must not be, and the other way round. */
function judged<Key extends string>(
  part: string,
  counts: Readonly<Record<Key, number>> | undefined,
  some: readonly NoInfer<Key>[],
  none: readonly NoInfer<Key>[],
): string[] {
  if (counts === undefined) return [`${part}: not looked at`];
  return [
    ...some.filter((key) => !(counts[key] > 0)).map((key) => `${part}: no ${key}`),
    ...none.filter((key) => counts[key] !== 0).map((key) => `${part}: ${counts[key]} ${key}`),
  ];
}

/**
 * Flat: after the warm-up, the median of the last third is at most 10 % or 15 MB, whichever is more, above that of the first.
 * Of a short soak a quarter is warm-up.
 */
function judgeMemory(all: readonly MemorySample[], seconds: number): MemoryVerdict {
  const warmUp = Math.min(WARM_UP_SECONDS, seconds / 4);
  const samples = all.filter(({ at }) => at >= warmUp);
  const third = Math.floor(samples.length / 3);
  const medianOf = (part: readonly MemorySample[]) =>
    percentile(
      part.map(({ mb }) => mb),
      0.5,
    );
  const first = medianOf(samples.slice(0, third));
  const last = medianOf(samples.slice(samples.length - third));
  const limit = first + Math.max(first * 0.1, 15);
  return {
    samples: samples.length,
    warm_up: warmUp,
    first_third_mb: first,
    last_third_mb: last,
    limit_mb: limit,
    slope_mb_per_minute: slope(samples) * 60,
    flat: samples.length >= LEAST_SAMPLES && last <= limit,
  };
}

/** Least squares, MB per second. */
function slope(samples: readonly MemorySample[]): number {
  const mean = (of: (sample: MemorySample) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const at = mean((sample) => sample.at);
  const mb = mean((sample) => sample.mb);
  const spread = mean((sample) => (sample.at - at) ** 2);
  return mean((sample) => (sample.at - at) * (sample.mb - mb)) / spread;
}

function notFlat({ samples, first_third_mb, last_third_mb, limit_mb }: MemoryVerdict): string {
  if (samples < LEAST_SAMPLES)
    return `memory: ${samples} samples after the warm-up, expected ${LEAST_SAMPLES} or more`;
  const [first, last, limit] = [first_third_mb, last_third_mb, limit_mb].map((mb) => mb.toFixed(1));
  return `memory: grew from ${first} to ${last} MB, expected at most ${limit} MB`;
}
