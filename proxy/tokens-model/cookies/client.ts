import { covers } from "../../causal-cookies.ts";
import { tokenOf as tokenOfAnswer } from "../../travelling-tokens.ts";
import { bindHere, isTracking } from "./sidecars.ts";
import { sideFor, standingBy } from "./standing.ts";
import {
  ASKED,
  COMING,
  end,
  freePlace,
  NONE,
  ON_THE_WAY,
  REDEEMING,
  SETTLING,
  UNPROMISED,
  sideAt,
  versionOf,
} from "./state.ts";
import type { Exchange, World } from "./state.ts";
import { carriedOf, isOpen, NOTHING, numberOf, standingHere, tokenOf } from "./tokens.ts";
import { carriedIn, fenceNow, issuing, selfOf, sidecarOf, stageOf, viewBy } from "./turn.ts";
import type { Self, Turn } from "./turn.ts";
import type { Token } from "../../ports.ts";

/** One client with one cookie jar, whose requests go through a sidecar of its choice; and others, who write too. */
export function clientSteps(turn: Turn): void {
  const { world, bounds, add } = turn;
  const authority = sideAt(stageOf(turn, world.stage));
  if (world.flip === 0 && world.writes < bounds.writes)
    add("somebody else writes", (next) => write(next, authority));
  for (const at of [0, 1]) exchangeSteps(turn, at);
  const free = world.exchanges.findIndex((exchange) => exchange.at === NONE);
  if (free === -1 || free >= bounds.requests) return;
  const isComing = world.exchanges.some(({ at, goesOn }) => at === COMING || goesOn === 1);
  if (isComing && !turn.allows("reads through another sidecar while an answer is still coming"))
    return;
  for (const who of [0, 1]) {
    const self = selfOf(turn, who);
    if (self.now.alive === 0) continue;
    read(self, free);
    if (!bounds.reads) askToWrite(self, free);
  }
}

function write(next: World, side: number): void {
  next.writes += 1;
  if (side === 0) next.old += 1;
  else next.new += 1;
}

/** What a request carries: a bit for each token in the jar. A client that keeps none may carry one that is not ours. */
function carriedNow({ world }: Turn): number {
  return (
    world.jar.reduce((bits, token, place) => (token === 0 ? bits : bits | (1 << place)), 0) &
    ~world.gone
  );
}

function carriedBy(self: Self, mask: number) {
  const { turn, stage } = self;
  if (turn.bounds.keeps || turn.has("a token of another migration is none"))
    return carriedIn(turn.world, mask);
  return [carriedOf(tokenOf(stage.epoch, NOTHING))];
}

function read(self: Self, at: number): void {
  const { turn, who, now } = self;
  const { world, bounds } = turn;
  const isBehind = stageOf(turn, now.stage).epoch !== stageOf(turn, world.stage).epoch;
  const mayMiss = turn.allows("keeps no cookies and asks a sidecar that missed a flip");
  if (!bounds.keeps && isBehind && world.flip !== 2 && !mayMiss) return;
  const mask = carriedNow(turn);
  const carried = carriedBy(self, mask);
  const standing = standingBy(self, carried);
  const isNewer = typeof standing === "object";
  const missedTwo = stageOf(turn, world.stage).epoch > self.stage.epoch + 1;
  const limit = "reads through a sidecar that missed two flips with a token of the first";
  if (isNewer && missedTwo && !turn.allows(limit)) return;
  const redeems =
    standing === "unpassed" && now.gate === 2 && carried.some(({ fence }) => fence === undefined);
  turn.add(`the client reads through ${who}`, (next) => {
    const exchange = next.exchanges[at]!;
    const floor = Math.max(world.seen, now.owed);
    Object.assign(exchange, { by: who, floor, carried: mask });
    // Were it written later, it would cover more.
    if (redeems) Object.assign(exchange, { at: REDEEMING, redeemed: fenceNow(self) });
    else Object.assign(exchange, { at: ASKED, side: sideFor(self, standing), follows: +isNewer });
  });
}

function askToWrite(self: Self, at: number): void {
  const { turn, who, now, stage } = self;
  const { world, bounds } = turn;
  const authority = sideAt(stageOf(turn, world.stage));
  const accepts = sideAt(stage) === authority;
  // Held while a flip goes on, but by a sidecar that does not know of it.
  const isHeld = world.flip !== 0;
  const slips =
    world.flip === 2 &&
    now.connected === 0 &&
    turn.allows("writes through a sidecar that missed two flips while the second ends");
  if (isHeld && !slips) return;
  const begins = (next: World, version: number) => {
    const exchange = next.exchanges[at]!;
    const carried = carriedNow(turn);
    Object.assign(exchange, {
      at: SETTLING,
      by: who,
      isWrite: 1,
      side: sideAt(stage),
      version,
      carried,
      fenced: +isTracking(now),
    });
    bindHere(self, sidecarOf(next, who));
  };
  if (!accepts || bounds.long)
    turn.add(
      `a write of the client through ${who} is ${accepts ? "not applied yet" : "refused"}`,
      (next) => begins(next, 0),
    );
  if (accepts && world.writes < bounds.writes)
    turn.add(`the client writes through ${who}`, (next) => {
      write(next, authority);
      begins(next, versionOf(next, authority));
    });
}

function exchangeSteps(turn: Turn, at: number): void {
  const exchange = turn.world.exchanges[at]!;
  if (exchange.at === NONE) return;
  const self = selfOf(turn, exchange.by);
  const isSent = exchange.at === ON_THE_WAY;
  if (self.now.alive === 0 && !isSent) {
    turn.add("the client's connection breaks", (next) => breaks(turn, next, at));
    return;
  }
  STEPS[exchange.at]?.(self, at, exchange);
}

const STEPS: Readonly<Record<number, (self: Self, at: number, exchange: Exchange) => void>> = {
  [REDEEMING]: redeem,
  [ASKED]: answerRead,
  [SETTLING]: settle,
  [ON_THE_WAY]: arrive,
  [COMING]: goOn,
};

/** `Causality.redeem`: the fence passes in time, or the client is judged by what it carries. */
function redeem(self: Self, at: number, { redeemed, carried }: Exchange): void {
  const { turn, who } = self;
  const judged = (next: World, fence: number) => {
    const tokens = fence === 0 ? carriedBy(self, carried) : [carriedOf(fence)];
    const side = sideFor(self, standingBy(self, tokens));
    Object.assign(next.exchanges[at]!, { at: ASKED, redeemed: fence, side });
  };
  if (standingHere(redeemed, viewBy(self)) === "passed")
    turn.add(`what the client has seen through ${who} has passed`, (next) =>
      judged(next, redeemed),
    );
  turn.add(`what the client has seen through ${who} does not pass in time`, (next) =>
    judged(next, 0),
  );
}

function answerRead(self: Self, at: number, { side, follows, floor, redeemed }: Exchange): void {
  const { turn, who, now, stage } = self;
  // Cut off, it does not know whether the follower is the authority now.
  const isBlind = now.connected === 0 && side !== sideAt(stage) && follows === 0;
  const promises =
    !isBlind ||
    !turn.has("who is cut off promises nothing of what it took for a follower's answer");
  const shown = promises
    ? { version: versionOf(turn.world, side), floor }
    : { version: 0, floor: 0 };
  for (const goesOn of turn.bounds.long ? [0, 1] : [0])
    send(self, at, {
      label: `side ${side} ${goesOn ? "begins to answer" : "answers"} ${who}`,
      fence: redeemed,
      change: (next) => {
        if (side === sideAt(stage)) bindHere(self, sidecarOf(next, who));
        Object.assign(next.exchanges[at]!, {
          ...shown,
          goesOn,
          follows: promises ? 0 : UNPROMISED,
        });
      },
    });
}

/** The answer to a write waits a moment for its fence. */
function settle(self: Self, at: number, { fenced }: Exchange): void {
  const { turn, who, now } = self;
  const fence = fenced === 1 && now.bound !== 0 && !isOpen(now.bound) ? now.bound : 0;
  for (const known of fence === 0 ? [0] : [0, fence])
    send(self, at, { label: `${who} answers the write`, fence: known });
  if (turn.bounds.long)
    send(self, at, {
      label: `${who} begins to answer the write`,
      fence: turn.has("what goes on gives an open token") ? 0 : fence,
      change: (next) => (next.exchanges[at]!.goesOn = 1),
    });
}

interface Sending {
  readonly label: string;
  readonly fence: number;
  readonly change?: (next: World) => void;
}

/** The head of the answer is sent, with the token that it gives. */
function send(self: Self, at: number, { label, fence, change = () => {} }: Sending): void {
  for (const isIssuing of issuing(self))
    self.turn.add(label, (next) => {
      change(next);
      const token = tokenGiven(self, next.exchanges[at]!, { fence, isIssuing });
      give(self, next, at, token);
    });
}

function give(self: Self, next: World, at: number, token: number): void {
  const exchange = next.exchanges[at]!;
  const takesAll = !self.turn.has("an answer takes away only what its token covers");
  exchange.takes = 0;
  if (token !== 0)
    for (const [place, other] of next.jar.entries()) {
      const bit = exchange.carried & (1 << place);
      if (bit !== 0 && (takesAll || covers(carriedOf(token), carriedOf(other))))
        exchange.takes |= bit;
    }
  Object.assign(exchange, {
    at: ON_THE_WAY,
    token,
    redeemed: 0,
    fenced: 0,
    carried: exchange.takes,
  });
}

function tokenGiven(
  self: Self,
  { isWrite, side, carried }: Exchange,
  { fence, isIssuing }: { readonly fence: number; readonly isIssuing: boolean },
): number {
  const { turn, now, stage } = self;
  const { has } = turn;
  const isByAuthority = side === sideAt(stage);
  if (isWrite === 1 && !has("a write gives a token")) return 0;
  if (
    isWrite === 0 &&
    isByAuthority &&
    carried !== 0 &&
    !has("a read of the authority gives an open token")
  )
    return 0;
  const inShare = stage.wanted || now.connected === 0;
  const tokens = carriedIn(turn.world, carried);
  if (
    isWrite === 0 &&
    isIssuing &&
    !inShare &&
    !has("an open token is given outside of the share, too")
  )
    return 0;
  if (!inShare && stage.epoch > 1 && !has("after a flip every answer names the epoch")) return 0;
  const follows = isWrite === 0 && !isByAuthority && fence === 0;
  if (follows && !has("who follows a newer epoch gives an open token of it")) return 0;
  const given = tokenOfAnswer(
    {
      kind: isWrite === 1 ? "write" : "read",
      side: sideNamed(side),
      carried: tokens,
      inShare,
      fence: fence === 0 ? undefined : { token: asWritten(fence) },
    },
    { epoch: stage.epoch, authority: sideNamed(sideAt(stage)), issuing: isIssuing, underWay: true },
  );
  return given === undefined ? 0 : numberOf(given);
}

function asWritten(token: number): Token {
  const { side, epoch, fence = 0n } = carriedOf(token);
  return { side, epoch, fence };
}

function arrive(self: Self, at: number, exchange: Exchange): void {
  const { turn } = self;
  const label = exchange.goesOn === 1 ? "the head of an answer" : "an answer";
  turn.add(`${label} arrives`, (next) => {
    see(next, exchange);
    if (turn.bounds.keeps) keep(turn, next, exchange);
    finish(next, at);
  });
  turn.add(`${label} is lost`, (next) => breaks(turn, next, at));
  if (turn.allows("has two cookie jars"))
    turn.add(`${label} arrives in the other jar`, (next) => {
      see(next, exchange);
      finish(next, at);
    });
}

function see(next: World, { isWrite, floor, version }: Exchange): void {
  if (isWrite === 0 && version < floor) next.stale = 1;
  next.seen = Math.max(next.seen, version);
}

function keep(turn: Turn, next: World, { token, takes }: Exchange): void {
  if (token === 0) return;
  next.gone |= turn.has("every token has a name of its own") ? takes : (1 << next.jar.length) - 1;
  const place = freePlace(next);
  next.jar[place] = token;
  next.gone &= ~(1 << place);
}

function finish(next: World, at: number): void {
  const exchange = next.exchanges[at]!;
  if (exchange.goesOn === 0) end(exchange);
  else Object.assign(exchange, { at: COMING, token: 0, takes: 0, carried: 0, floor: 0 });
}

/** The app goes on, and may have read or written something since. */
function goOn(self: Self, at: number, { isWrite, side, follows }: Exchange): void {
  const { turn, who, stage } = self;
  const { world } = turn;
  const authority = sideAt(stageOf(turn, world.stage));
  const ends = (next: World, version: number) => {
    if (side === sideAt(stage)) bindHere(self, sidecarOf(next, who));
    if (follows !== UNPROMISED) next.seen = Math.max(next.seen, version);
    end(next.exchanges[at]!);
  };
  if (isWrite === 1 && world.writes < turn.bounds.writes && world.flip === 0 && side === authority)
    turn.add("the app writes once more, and its answer ends", (next) => {
      write(next, authority);
      ends(next, versionOf(next, authority));
    });
  turn.add("the rest of the answer arrives", (next) =>
    ends(next, isWrite === 1 ? 0 : versionOf(world, side)),
  );
  turn.add("the rest of the answer is lost", (next) => breaks(turn, next, at));
}

/** Nobody promises that the client knows what it did; this sidecar does. */
export function breaks(turn: Turn, next: World, at: number): void {
  const exchange = next.exchanges[at]!;
  const { isWrite, version, by } = exchange;
  if (isWrite === 1) {
    const me = sidecarOf(next, by);
    me.owed = Math.max(me.owed, version);
    if (turn.allows("reads through another sidecar what it wrote without an answer"))
      next.seen = Math.max(next.seen, version);
  }
  end(exchange);
}

const sideNamed = (side: number) => (side === 0 ? "old" : "new");
