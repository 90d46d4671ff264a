import { describe, expect, test } from "vitest";
import { cookieModel } from "../../proxy/tokens-model/cookies/model.ts";
import { COOKIE_LIMITS, COOKIE_RULES } from "../../proxy/tokens-model/cookies/rules.ts";
import type {
  CookieBounds,
  CookieLimit,
  CookieRule,
  Stage,
} from "../../proxy/tokens-model/cookies/rules.ts";
import { explore, tell } from "../support/explore.ts";

const MINUTE = 60_000;
/** `CROSSFADE_DEEP=1 npx vitest run cookies-model`: many minutes, some GB of memory, and the shortest trace of every violation. */
const DEEP = process.env["CROSSFADE_DEEP"] !== undefined;

const WANTED: Stage = { epoch: 1, wanted: true };
const UNWANTED: Stage = { epoch: 1, wanted: false };
const FLIPPED: Stage = { epoch: 2, wanted: false };
const BACK: Stage = { epoch: 3, wanted: true };

const through = (stages: readonly Stage[], more: Partial<CookieBounds> = {}): CookieBounds => ({
  stages,
  writes: 1,
  reads: false,
  requests: 1,
  keeps: true,
  long: false,
  late: false,
  away: false,
  accidents: [],
  ...more,
});
const CUT = { accidents: ["cut"] } as const;
const AWAY = { away: true };
/** Two answers at once, as few ways to them as possible. */
const AT_ONCE = { ...AWAY, requests: 2, reads: true } as const;

const WHOLE: readonly CookieBounds[] = DEEP
  ? [
      through([WANTED], { late: true, writes: 2 }),
      through([WANTED], { requests: 2 }),
      through([WANTED], { long: true, writes: 2 }),
      through([WANTED], { accidents: ["cut", "restart"] }),
      through([WANTED], { accidents: ["cut", "death"] }),
      through([UNWANTED, WANTED], CUT),
      through([WANTED, UNWANTED, WANTED], CUT),
      through([WANTED, FLIPPED], { ...CUT, long: true }),
      through([WANTED, FLIPPED], { ...CUT, keeps: false }),
      through([WANTED, FLIPPED, BACK], CUT),
    ]
  : [
      through([WANTED], { writes: 2 }),
      through([WANTED], { long: true }),
      through([WANTED], { accidents: ["restart"] }),
      through([UNWANTED, WANTED], CUT),
      through([WANTED, UNWANTED, WANTED], { reads: true }),
      through([WANTED, FLIPPED], CUT),
      through([WANTED, FLIPPED], { ...AWAY, keeps: false }),
      through([WANTED, FLIPPED, BACK], AWAY),
    ];

/** How far one has to look to see what goes wrong without each rule. */
const WITHOUT: Readonly<Record<CookieRule, CookieBounds>> = {
  "a write gives a token": through([WANTED]),
  "a read of the authority gives an open token": through([WANTED]),
  "what goes on gives an open token": through([WANTED], { long: true }),
  "a fence is asked for after the write": through([WANTED]),
  "every token has a name of its own": through([WANTED], AT_ONCE),
  "an answer takes away only what its token covers": through([WANTED, FLIPPED], AWAY),
  "every token that is carried binds": through([WANTED], AT_ONCE),
  "an open token binds": through([WANTED]),
  "an open token of an older epoch binds": through([WANTED, FLIPPED, BACK], AWAY),
  "no token is no promise": through([WANTED], { keeps: false }),
  "a token of another migration is none": through([WANTED], { keeps: false }),
  "a newer epoch's token is followed": through([WANTED, FLIPPED], AWAY),
  "who follows a newer epoch gives an open token of it": through([WANTED, FLIPPED, BACK], CUT),
  "after a flip every answer names the epoch": through([WANTED, FLIPPED], AWAY),
  "what was answered binds the client here, too": through([WANTED]),
  "the gate opens behind a fence": through([WANTED]),
  "all live sidecars are in step": through([UNWANTED, WANTED]),
  "who is back counts on what is said since": through([WANTED, UNWANTED, WANTED], {
    ...AWAY,
    reads: true,
  }),
  "who is cut off has noticed before the others go on without it": through([UNWANTED, WANTED], CUT),
  "who is cut off gives tokens": through([UNWANTED, WANTED], AWAY),
  "tokens are given for a while after the last phase that needs them": through([WANTED, UNWANTED]),
  "an open token is given outside of the share, too": through([WANTED, UNWANTED]),
  "a hold that ends at its deadline cuts off": through([WANTED, FLIPPED], CUT),
  "who is cut off promises nothing of what it took for a follower's answer": through(
    [WANTED, FLIPPED],
    CUT,
  ),
};

/** What the promise leaves out (docs/decisions/causal-cookies.md) goes wrong with all rules. */
const BEYOND: Readonly<Record<CookieLimit, CookieBounds>> = {
  "reads through another sidecar while an answer is still coming": through([WANTED], {
    ...AT_ONCE,
    long: true,
  }),
  "reads through another sidecar what it wrote without an answer": through([WANTED]),
  "has two cookie jars": through([WANTED]),
  "forgets some of its tokens and keeps others": through([WANTED, FLIPPED], AWAY),
  "keeps no cookies and asks a sidecar that missed a flip": through([WANTED, FLIPPED], {
    ...AWAY,
    keeps: false,
  }),
  "writes through a sidecar that missed two flips while the second ends": through(
    [WANTED, FLIPPED, BACK],
    AWAY,
  ),
  "still receives an answer when a flip ends and asks a sidecar that missed it": through(
    [WANTED, FLIPPED],
    { ...AWAY, long: true },
  ),
  "reads through a sidecar that missed two flips with a token of the first": through(
    [WANTED, FLIPPED, BACK],
    AWAY,
  ),
};

const STALE = "reads what is older than what it has seen";

describe("the causal tokens in cookies, every behaviour of them", () => {
  test.each(WHOLE)(
    "nobody reads less than they have seen: $stages, $requests requests, $writes writes, keeps $keeps, long $long, away $away, $accidents",
    (bounds) => {
      const found = explore(cookieModel(bounds));
      if (DEEP) tell(JSON.stringify(bounds), found);
      expect(found.violation).toBeUndefined();
      // A model in which nothing can happen is right too.
      expect(found.states).toBeGreaterThan(1_000);
    },
    10 * MINUTE,
  );

  test.each(COOKIE_RULES)(
    "goes wrong without this rule: %s",
    (rule) => {
      const found = explore(cookieModel(WITHOUT[rule], rule));
      if (DEEP) tell(rule, found);
      expect(found.violation?.what).toBe(STALE);
    },
    3 * MINUTE,
  );

  test.each(COOKIE_LIMITS)(
    "is not promised to a client that %s",
    (allowed) => {
      const found = explore(cookieModel({ ...BEYOND[allowed], allowed }));
      if (DEEP) tell(allowed, found);
      expect(found.violation?.what).toBe(STALE);
    },
    3 * MINUTE,
  );
});
