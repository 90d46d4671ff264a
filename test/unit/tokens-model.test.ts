import { describe, expect, test } from "vitest";
import { tokenModel } from "../../proxy/tokens-model/model.ts";
import { TOKEN_RULES } from "../../proxy/tokens-model/rules.ts";
import type { Accident, TokenBounds, TokenRule } from "../../proxy/tokens-model/rules.ts";
import { explore, tell } from "../support/explore.ts";

const MINUTE = 60_000;
/** `CROSSFADE_DEEP=1 npx vitest run tokens-model`: minutes, and the shortest trace of every violation. */
const DEEP = process.env["CROSSFADE_DEEP"] !== undefined;

const within = (epochs: number, ...accidents: Accident[]): TokenBounds => ({
  epochs,
  writes: 1,
  accidents,
});

const WHOLE: readonly TokenBounds[] = DEEP
  ? [
      { ...within(0), writes: 2 },
      within(0, "cut"),
      within(1, "cut"),
      within(1, "loss"),
      within(1, "flush"),
      within(1, "death"),
      within(0, "loss", "cut"),
      within(2),
      { ...within(2), away: "control store" },
      { ...within(2), away: "control store", from: 1, missed: 0 },
      { ...within(1), away: "both" },
    ]
  : [within(1), { ...within(0), away: "both" }];

/** How far one has to look to see what goes wrong without each rule. */
const WITHOUT: Readonly<Record<TokenRule, TokenBounds>> = {
  "a write binds its client": within(0),
  "a fence is asked for after the write": within(0),
  "an open token is stored before the answer": within(0),
  "an answer waits until its token is stored, or the others know that it is not": within(0, "loss"),
  "each holder has a field of its own": within(0),
  "the others' tokens are asked for": within(0),
  "a generation is checked in the same step": within(0, "flush"),
  "the gate opens behind a fence": within(0, "loss"),
  "all live sidecars are in step": within(0, "loss"),
  "a broken pledge shuts the gate": within(0, "loss"),
  "who is cut off has noticed before the others go on without it": within(0, "loss", "cut"),
  "who is cut off asks for the epoch": { ...within(1), away: "control store", missed: 1 },
  "each epoch's authority is stored": { ...within(1), away: "control store" },
  "a newer epoch's token is followed": { ...within(1), away: "control store", missed: 1 },
  "who is cut off from both promises nothing": { ...within(0), away: "both" },
  "a hold that ends at its deadline cuts off": within(1, "cut"),
  "who is back says again what it stores": { ...within(0), away: "both" },
  "who follows a newer epoch promises only where nobody reads from a follower": {
    ...within(2),
    away: "control store",
    from: 1,
    missed: 0,
  },
  "what was asked of one without a promise has none": { ...within(1), away: "both", missed: 1 },
  "an open token of an older epoch binds": { ...within(2), away: "control store", missed: 2 },
};

describe("the causal tokens in Redis, every behaviour of them", () => {
  test.each(WHOLE)(
    "nobody reads less than they have seen: $epochs flips, $writes writes, $accidents, away from $away",
    (bounds) => {
      const found = explore(tokenModel(bounds));
      if (DEEP) tell(JSON.stringify(bounds), found);
      expect(found.violation).toBeUndefined();
      // A model in which nothing can happen is right too.
      expect(found.states).toBeGreaterThan(10_000);
    },
    10 * MINUTE,
  );

  test.each(TOKEN_RULES)(
    "goes wrong without this rule: %s",
    (rule) => {
      const found = explore(tokenModel(WITHOUT[rule], rule));
      if (DEEP) tell(rule, found);
      expect(found.violation?.what).toBe("reads what is older than what it has seen");
    },
    3 * MINUTE,
  );
});
