import { expect, test } from "vitest";
import { CausalCookies, standingOf } from "../../proxy/causal-cookies.ts";
import type { CarriedToken } from "../../proxy/causal-cookies.ts";
import { tokenOf } from "../../proxy/travelling-tokens.ts";
import { hasHeard, isInStep } from "../../proxy/in-step.ts";

const cookies = new CausalCookies(() => "salt");
const token = (epoch: number, fence: bigint | undefined): CarriedToken => ({
  side: "old",
  epoch,
  fence,
});
const view = (epoch: number, fence: bigint) => ({ epoch, passed: { epoch, fence } });

/** The cookie pairs that the fields give, and the names that they take away. */
function read(fields: readonly string[]): { given: string[]; taken: string[] } {
  const values = fields.filter((_, index) => index % 2 === 1);
  return {
    given: values.filter((value) => !value.includes("Max-Age=0")).map((v) => v.split(";")[0] ?? ""),
    taken: values.filter((value) => value.includes("Max-Age=0")).map((v) => v.split("=")[0] ?? ""),
  };
}

test("a token comes back as it was given; a forged one, or one of another migration, is none", () => {
  for (const given of [token(3, 12n), token(1, undefined), token(2, 0n)]) {
    const [pair = ""] = read(cookies.setting(given, [])).given;
    expect(cookies.of(`a=b; ${pair}; c`)).toMatchObject([given]);
    expect(cookies.of(pair.replace(/=\d/, "=7"))).toEqual([]);
    expect(cookies.of(pair.replace(/_(\w{8})=/, "_00000000="))).toEqual([]);
    expect(new CausalCookies(() => "other").of(pair)).toEqual([]);
  }
  const [field, value] = cookies.setting(token(1, 1n), []);
  expect(field).toBe("set-cookie");
  expect(value).toMatch(/; Path=\/; HttpOnly; SameSite=Lax$/);
});

test("two answers that overtake each other leave both tokens; the next one takes what it covers", () => {
  const first = read(cookies.setting(token(1, 5n), [])).given;
  const second = read(cookies.setting(token(1, 9n), [])).given;
  const carried = cookies.of([...first, ...second].join("; "));
  expect(carried).toHaveLength(2);
  const names = carried.map(({ name }) => name);
  expect(read(cookies.setting(token(1, 11n), carried)).taken).toEqual(names);
  expect(read(cookies.setting(token(1, undefined), carried)).taken).toEqual(names);
  expect(read(cookies.setting(token(1, 7n), carried)).taken).toEqual([names[0]]);
  expect(read(cookies.setting(token(2, 0n), carried)).taken).toEqual(names);
  expect(read(cookies.setting(token(0, 99n), carried)).taken).toEqual([]);
});

test.each<[string, CarriedToken[], ReturnType<typeof standingOf>]>([
  ["nothing carried", [], "unpassed"],
  ["passed", [token(2, 5n)], "passed"],
  ["one of two has not passed", [token(2, 5n), token(2, 6n)], "unpassed"],
  ["open", [token(2, undefined)], "unpassed"],
  ["older epoch", [token(1, 99n), token(1, 0n)], "passed"],
  [
    "older epoch, open: of one that may not have known that it was over",
    [token(1, undefined)],
    "unpassed",
  ],
  ["nothing to wait for", [token(2, 0n)], "passed"],
  ["newer epoch, even open", [token(2, 5n), token(3, undefined)], { newer: "old" }],
])("standing: %s", (_name, carried, expected) => {
  expect(standingOf(carried, view(2, 5n))).toEqual(expected);
});

test("after a flip an answer names the epoch where nobody needs a token any more, also where nothing is mirrored back", () => {
  const answer = {
    kind: "read",
    side: "new",
    carried: [],
    inShare: false,
    fence: undefined,
  } as const;
  const facts = { epoch: 2, authority: "new", issuing: false, underWay: true } as const;
  expect(tokenOf(answer, facts)).toEqual({ side: "new", epoch: 2, fence: 0n });
  expect(tokenOf({ ...answer, carried: [token(2, 0n)] }, facts)).toBeUndefined();
  expect(tokenOf(answer, { ...facts, underWay: false })).toBeUndefined();
  expect(tokenOf(answer, { ...facts, issuing: true })).toEqual({ side: "new", epoch: 2 });
  // One that has not heard of it, and follows its client's token.
  const behind = { ...facts, epoch: 1, authority: "old" } as const;
  const carried = [token(2, 5n), { ...token(3, 7n), side: "new" as const }];
  expect(tokenOf({ ...answer, carried }, behind)).toEqual({ side: "new", epoch: 3 });
  expect(tokenOf({ ...answer, carried: [token(3, undefined)] }, behind)).toBeUndefined();
});

test("in step: all that live have heard of the share, know of this one, and carry tokens in the same way", () => {
  const mine = { id: "me", tokens: "cookie", since: 5 };
  const peers = ["other", "me"];
  expect(isInStep([], mine)).toBe(true);
  expect(isInStep([{ tokens: "cookie", version: 5, peers }], mine)).toBe(true);
  expect(isInStep([{ tokens: "cookie", version: 4, peers }], mine)).toBe(false);
  expect(isInStep([{ tokens: "none", version: 5, peers }], mine)).toBe(false);
  expect(isInStep([{ tokens: "cookie", version: 5, peers: [] }], mine)).toBe(false);
  expect(isInStep([{}], mine)).toBe(false);
});

test("a pledge is heard once every other one names it, or a later one of the same run", () => {
  const heard = (of: unknown) => hasHeard({ heard: of }, "me", "run", 3);
  expect([heard({ me: "run:2" }), heard({ me: "run:3" }), heard({ me: "run:4" })]).toEqual([
    false,
    true,
    true,
  ]);
  expect(heard({ me: "earlier:9" })).toBe(false);
  expect([heard({ someone: "run:1" }), hasHeard({}, "me", "run", 3)]).toEqual([false, true]);
});
