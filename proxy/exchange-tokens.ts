import type { Side } from "../config/words.ts";
import { securely } from "./causal-cookies.ts";
import type { CarriedToken, CausalCookie } from "./causal-cookies.ts";
import type { Causality, ReadFacts } from "./causality.ts";
import type { RouteClass } from "./classify.ts";
import type { Identity } from "./client-identity.ts";
import type { ExchangeContext } from "./exchange-context.ts";
import type { Fence } from "./fences.ts";
import type { Standing } from "./route.ts";
import type { HeldMark } from "./shared-tokens.ts";
import type { RequestTrace } from "./trace/ports.ts";
import { isSecure } from "./inbound.ts";
import type { ClientRequest } from "./inbound.ts";

type TokensContext = Pick<
  ExchangeContext,
  "causality" | "state" | "headers" | "fenceMs" | "strictMs"
>;

const NOT_A_READ: ReadFacts = { bucket: 0, share: 0, standing: "passed" };

/** What one request is bound by, and what its answer binds: the part of an exchange that keeps the promise of DESIGN §4. */
export class ExchangeTokens {
  readonly #context: TokensContext;
  readonly #request: ClientRequest;
  readonly #class: RouteClass;
  readonly #trace: RequestTrace | undefined;
  #identity: Identity | undefined;
  #carried: readonly CausalCookie[] | undefined;
  /** Identities that the answer gives to the client. */
  #sets: readonly string[] = [];
  #fence: Fence | undefined;
  /** Was taken before this read, for what its client had seen by then, and has passed. */
  #redeemed: Fence | undefined;
  #looked = false;
  #found: readonly CarriedToken[] | undefined;
  /** Binds the client elsewhere for as long as the answer goes on. */
  #held: HeldMark | undefined;
  #isPromised = true;
  /** The side that is asked because a token names a newer epoch than this sidecar's. */
  #follows: Side | undefined;
  /** When it was decided who answers. The link may be back, and the authority another one, when the answer comes. */
  #wasAuthorityOnly = false;
  /** The app's answer was complete before its head was sent. */
  #isWhole = false;

  constructor(
    context: TokensContext,
    request: ClientRequest,
    routeClass: RouteClass,
    trace: RequestTrace | undefined,
  ) {
    this.#trace = trace;
    this.#context = context;
    this.#request = request;
    this.#class = routeClass;
  }

  /** Something to wait for before it is decided who answers a read; undefined: nothing. */
  ready(): Promise<void> | undefined {
    const { kind, pin } = this.#class;
    if (kind !== "read" || pin !== undefined) return undefined;
    if (this.#causality.mustLook(this.#identify)) return this.#look();
    if (this.#carries().length === 0) return undefined;
    return this.#causality.mayRedeem(this.#identify, this.#carries()) ? this.#redeem() : undefined;
  }

  /** What routing needs to know of the client. */
  facts(): ReadFacts {
    const { kind, pin } = this.#class;
    if (kind !== "read" || pin !== undefined) return NOT_A_READ;
    this.#wasAuthorityOnly = isAuthorityOnly(this.#causality);
    const facts = this.#causality.factsOf(this.#identify, this.#standing());
    this.#follows = typeof facts.standing === "object" ? facts.standing.newer : undefined;
    return facts;
  }

  /** The head of the app's answer: `wait` means that `settle` comes before anything is sent. */
  onHead(headers: readonly string[], side: Side | undefined): "send" | "wait" {
    this.#sets = this.#causality.setBy(headers);
    const { kind } = this.#class;
    if (kind === "write") return this.#causality.need() === "none" ? "send" : "wait";
    if (kind !== "read") return "send";
    if (this.#isByAuthority(side) && this.#causality.sharesRead(this.#identify, this.#sets)) {
      return "wait";
    }
    this.#bindReader(side, true);
    return "send";
  }

  /** Resolves when the answer may be sent. */
  async settle(): Promise<void> {
    if (this.#class.kind === "write") await this.#settleWrite();
    else
      this.#isPromised = await this.#share(
        this.#causality.answeredByAuthority(this.#identify, this.#sets),
      );
  }

  async #settleWrite(): Promise<void> {
    const { fenceMs, strictMs } = this.#context;
    const need = this.#causality.need();
    if (need === "none") return;
    const trace = this.#trace?.fence();
    this.#fence = this.#causality.wrote(this.#identify, this.#sets, trace?.parent);
    if (this.#fence === undefined) return;
    trace?.follow(this.#fence);
    const shared = this.#share(this.#fence);
    if (need === "until-passed") await this.#causality.untilPassed(this.#fence, strictMs);
    // Not written in time: the client stays with the authority until it is, and has passed.
    else await this.#fence.written(fenceMs);
    this.#isPromised = await shared;
  }

  /** Whether the other sidecars know what this answer binds. What goes on binds until its end. */
  async #share(fence: Fence | undefined): Promise<boolean> {
    if (fence === undefined) return true;
    if (this.#isWhole) return this.#causality.share(this.#binds(), fence);
    this.#held = this.#causality.shareOpen(this.#binds());
    return this.#held?.bound ?? true;
  }

  #binds(): readonly string[] {
    const { reads, writes } = this.#identify();
    return [...(this.#class.kind === "write" ? writes : reads), ...this.#sets];
  }

  /** Nothing more of the answer comes: a fence taken now covers all of it. */
  #endHeld(fence: Fence | undefined): void {
    if (this.#held === undefined) return;
    if (fence !== undefined) void this.#causality.share(this.#binds(), fence);
    this.#held.end();
    this.#held = undefined;
  }

  onPart(side: Side | undefined): void {
    if (this.#class.kind === "read") this.#bindReader(side, false);
    this.#held?.again();
  }

  /** The app's answer is complete; `settleFollows`: nothing of it has been sent. */
  onDone(settleFollows: boolean): void {
    this.#isWhole = settleFollows;
    // An app may write on while it answers: a long answer takes another fence at its end.
    if (this.#class.kind === "write" && !settleFollows) {
      this.#endHeld(this.#causality.wrote(this.#identify, this.#sets));
    }
    if (this.#held !== undefined) {
      this.#endHeld(this.#causality.answeredByAuthority(this.#identify, this.#sets));
    }
  }

  /** The app did not answer, or broke off. */
  onFailed(): void {
    if (this.#class.kind === "write") this.#causality.mayHaveWritten(this.#identify);
    if (this.#held !== undefined) {
      this.#endHeld(this.#causality.answeredByAuthority(this.#identify, this.#sets));
    }
  }

  /** Header fields of the answer that `side` gave: the client's token, and what is said of the answer. */
  headers(side: Side): string[] {
    return [...this.#tokenFields(side), ...this.#said(side)];
  }

  get #causality(): Causality {
    return this.#context.causality;
  }

  async #redeem(): Promise<void> {
    this.#redeemed = await this.#causality.redeem();
  }

  #tokenFields(side: Side): string[] {
    const { kind } = this.#class;
    const written = this.#isWhole ? this.#fence : undefined;
    const fields = this.#causality.tokenFields(this.#identify, {
      kind,
      side,
      carried: this.#carries(),
      fence: kind === "read" ? this.#redeemed : written,
    });
    return isSecure(this.#request) ? securely(fields) : fields;
  }

  #said(side: Side): string[] {
    if (!this.#context.headers) return [];
    const own = ["crossfade-side", side];
    if (this.#class.kind === "write" && this.#causality.mirrored) {
      const passed = this.#fence !== undefined && this.#causality.hasPassed(this.#fence);
      own.push("crossfade-mirrored", passed ? "yes" : "pending");
    }
    const isRead = this.#class.kind === "read";
    if (isRead && this.#isUnknown(side)) own.push("crossfade-consistency", "none");
    else if (isRead && (this.#wasAuthorityOnly || isAuthorityOnly(this.#causality))) {
      own.push("crossfade-consistency", "authority-only");
    } else if (!this.#isPromised) {
      own.push("crossfade-consistency", "none");
    }
    return own;
  }

  /**
   * Asked as a follower, and cut off since: it may have become the authority, and nothing binds the client to it. Nor is it bound in Redis
   * by an answer of the side that a newer epoch names, where others may read from that one's follower; a cookie binds it.
   */
  #isUnknown(side: Side): boolean {
    if (this.#follows !== undefined) return this.#looked && this.#follows === "old";
    return this.#causality.isBlind && !this.#isByAuthority(side);
  }

  #bindReader(side: Side | undefined, isHead: boolean): void {
    if (!this.#causality.gate.tracking) return;
    if (this.#isByAuthority(side)) {
      this.#causality.answeredByAuthority(this.#identify, this.#sets);
    } else if (isHead) {
      this.#causality.answeredByFollower(this.#identify, this.#sets);
    }
  }

  #isByAuthority(side: Side | undefined): boolean {
    return side === this.#context.state().authority;
  }

  readonly #identify = (): Identity => {
    this.#identity ??= this.#causality.identify(this.#request);
    return this.#identity;
  };

  #carries(): readonly CausalCookie[] {
    this.#carried ??= this.#causality.carriedBy(this.#request);
    return this.#carried;
  }

  /** By the tokens that a read is judged by, but for what this sidecar knows by itself. */
  #standing(): Standing {
    if (this.#looked) return this.#causality.standingIn(this.#found);
    const token = this.#redeemed?.token;
    return this.#causality.travelled(token === undefined ? this.#carries() : [token]);
  }

  async #look(): Promise<void> {
    this.#looked = true;
    this.#found = await this.#causality.look(this.#identify);
  }
}

/** The phase sends reads to new, but this sidecar can keep its promises only with the authority. */
function isAuthorityOnly(causality: Causality): boolean {
  const { wanted, why } = causality.gate;
  return wanted > 0 && why !== undefined && why !== "opening";
}
