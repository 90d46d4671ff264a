import type { Side } from "../config/words.ts";
import type { CarriedToken, CausalCookie } from "./causal-cookies.ts";
import type { Causality, ReadFacts } from "./causality.ts";
import type { RouteClass } from "./classify.ts";
import type { Identity } from "./client-identity.ts";
import type { ExchangeContext } from "./exchange-context.ts";
import type { Fence } from "./fences.ts";
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
  #identity: Identity | undefined;
  #carried: readonly CausalCookie[] | undefined;
  /** Identities that the answer gives to the client. */
  #sets: readonly string[] = [];
  #fence: Fence | undefined;
  /** Was taken before this read, for what its client had seen by then, and has passed. */
  #redeemed: Fence | undefined;
  /** The app's answer was complete before its head was sent. */
  #isWhole = false;

  constructor(context: TokensContext, request: ClientRequest, routeClass: RouteClass) {
    this.#context = context;
    this.#request = request;
    this.#class = routeClass;
  }

  /** Something to wait for before it is decided who answers a read; undefined: nothing. */
  ready(): Promise<void> | undefined {
    const { kind, pin } = this.#class;
    if (kind !== "read" || pin !== undefined || this.#carries().length === 0) return undefined;
    return this.#causality.mayRedeem(this.#identify, this.#carries()) ? this.#redeem() : undefined;
  }

  /** What routing needs to know of the client. */
  facts(): ReadFacts {
    const { kind, pin } = this.#class;
    if (kind !== "read" || pin !== undefined) return NOT_A_READ;
    return this.#causality.factsOf(this.#identify, this.#proof());
  }

  /** The head of the app's answer: `wait` means that `settle` comes before anything is sent. */
  onHead(headers: readonly string[], side: Side | undefined): "send" | "wait" {
    this.#sets = this.#causality.setBy(headers);
    const { kind } = this.#class;
    if (kind === "write") return this.#causality.need() === "none" ? "send" : "wait";
    if (kind === "read") this.#bindReader(side, true);
    return "send";
  }

  /** Resolves when the answer may be sent. */
  async settle(): Promise<void> {
    const { fenceMs, strictMs } = this.#context;
    const need = this.#causality.need();
    this.#fence = this.#causality.wrote(this.#identify, this.#sets);
    if (this.#fence === undefined) return;
    if (need === "until-passed") await this.#causality.untilPassed(this.#fence, strictMs);
    // Not written in time: the client stays with the authority until it is, and has passed.
    else await this.#fence.written(fenceMs);
  }

  onPart(side: Side | undefined): void {
    if (this.#class.kind === "read") this.#bindReader(side, false);
  }

  /** The app's answer is complete; `settleFollows`: nothing of it has been sent. */
  onDone(settleFollows: boolean): void {
    this.#isWhole = settleFollows;
    // An app may write on while it answers: a long answer takes another fence at its end.
    if (this.#class.kind === "write" && !settleFollows) {
      this.#causality.wrote(this.#identify, this.#sets);
    }
  }

  /** The app did not answer, or broke off. */
  onFailed(): void {
    if (this.#class.kind === "write") this.#causality.mayHaveWritten(this.#identify);
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
    return this.#causality.tokenFields(this.#identify, {
      kind,
      side,
      carried: this.#carries(),
      fence: kind === "read" ? this.#redeemed : written,
    });
  }

  #said(side: Side): string[] {
    if (!this.#context.headers) return [];
    const own = ["crossfade-side", side];
    if (this.#class.kind === "write" && this.#causality.mirrored) {
      const passed = this.#fence !== undefined && this.#causality.hasPassed(this.#fence);
      own.push("crossfade-mirrored", passed ? "yes" : "pending");
    }
    if (this.#class.kind === "read" && isAuthorityOnly(this.#causality)) {
      own.push("crossfade-consistency", "authority-only");
    }
    return own;
  }

  #bindReader(side: Side | undefined, isHead: boolean): void {
    if (!this.#causality.gate.tracking) return;
    if (side === this.#context.state().authority) {
      this.#causality.answeredByAuthority(this.#identify, this.#sets);
    } else if (isHead) {
      this.#causality.answeredByFollower(this.#identify, this.#sets);
    }
  }

  readonly #identify = (): Identity => {
    this.#identity ??= this.#causality.identify(this.#request);
    return this.#identity;
  };

  #carries(): readonly CausalCookie[] {
    this.#carried ??= this.#causality.carriedBy(this.#request);
    return this.#carried;
  }

  /** The tokens that a read is judged by. */
  #proof(): readonly CarriedToken[] {
    const token = this.#redeemed?.token;
    return token === undefined ? this.#carries() : [token];
  }
}

/** The phase sends reads to new, but this sidecar can keep its promises only with the authority. */
function isAuthorityOnly(causality: Causality): boolean {
  const { wanted, why } = causality.gate;
  return wanted > 0 && why !== undefined && why !== "opening";
}
