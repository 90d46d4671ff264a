/** What a sidecar reports of its shadow reads: plain JSON, names as `status --json` has them. */
export interface ShadowReport {
  /** Reads whose answers of both sides were compared to a verdict. */
  readonly samples: number;
  /** Of those: answered differently, also after a fence had passed. */
  readonly mismatches: number;
  /** Of those: different only where old also differs from itself. */
  readonly noise: number;
  /** Of those: different at first, the same once a fence had passed. */
  readonly in_flight: number;
  /** No verdict although they differed at first: no fence passed in time, or old failed when asked again. */
  readonly unjudged: number;
  /** Not compared: too large, not to be decoded, or old did not answer in time. */
  readonly skipped: number;
  /** Not taken, because as many as allowed were under way. */
  readonly dropped: number;
  /** The most frequent mismatches. */
  readonly groups: readonly ShadowGroup[];
  /** Paths on which old differs from itself. */
  readonly noise_paths: readonly { readonly route: string; readonly path: string }[];
}

/** Mismatches of one route at one place of its answer. */
export interface ShadowGroup {
  /** Method and path, with ids replaced: `GET /users/:id`. */
  readonly route: string;
  /** `$.items[*].name`, or `(status)`, `(body)`, `(no answer)`. */
  readonly path: string;
  readonly count: number;
  readonly example: ShadowExample;
}

export interface ShadowExample {
  /** Method and path; values of the query are left out. */
  readonly request: string;
  readonly statuses: { readonly old: number; readonly new: number | null };
  /** JSON text, redacted and cut. */
  readonly old: string;
  readonly new: string;
}

export const NO_SHADOW: ShadowReport = {
  samples: 0,
  mismatches: 0,
  noise: 0,
  in_flight: 0,
  unjudged: 0,
  skipped: 0,
  dropped: 0,
  groups: [],
  noise_paths: [],
};
