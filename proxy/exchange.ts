import type { IncomingMessage, ServerResponse } from "node:http";
import type { Side } from "../config/words.ts";
import type { AskedSide } from "./asked-side.ts";
import { isDead } from "./breaker.ts";
import type { Breaker } from "./breaker.ts";
import type { CarriedToken, CausalCookie } from "./causal-cookies.ts";
import type { Causality } from "./causality.ts";
import type { Classify, RouteClass } from "./classify.ts";
import type { Identity } from "./client-identity.ts";
import type { Fence } from "./fences.ts";
import type { Gathered } from "./gathering.ts";
import { requestHeaders, valueOf } from "./headers.ts";
import type { HeldWrite, HoldGate } from "./hold.ts";
import type { RoutingState } from "./ports.ts";
import { answerForFailure, answerForHold, codeOf, isUnsendable, sendOwnAnswer } from "./replies.ts";
import { hasBody, isReadFirst, readSmall, streamBody } from "./request-body.ts";
import type { RequestBody } from "./request-body.ts";
import { requestIdOf } from "./request-id.ts";
import { route } from "./route.ts";
import type { Decision } from "./route.ts";
import type { Shadow, ShadowSample } from "./shadow/shadow.ts";
import type { HeldRecorder, TrafficRecorder } from "./stats.ts";
import { ClientLeft, Transfer } from "./transfer.ts";
import type { TransferHooks } from "./transfer.ts";
import type { Upstream, UpstreamTimeouts } from "./upstream.ts";

/** What every exchange of a sidecar shares. */
export interface ExchangeContext {
  readonly upstreams: Readonly<Record<Side, Upstream>>;
  readonly timeouts: UpstreamTimeouts;
  readonly classify: Classify;
  readonly askedSide: AskedSide;
  readonly state: () => RoutingState;
  readonly causality: Causality;
  readonly hold: HoldGate;
  readonly traffic: TrafficRecorder;
  /** For reads of new while it is not the authority. */
  readonly breaker: Breaker;
  readonly held: HeldRecorder;
  readonly shadow: Shadow;
  /** Whether a read that new fails in canary is answered by old. */
  readonly fallback: boolean;
  /** Whether answers carry `crossfade-*` fields. */
  readonly headers: boolean;
  /** How long the answer to a write may wait for its fence to be written (`causal`) and to pass (`strict`). */
  readonly fenceMs: number;
  readonly strictMs: number;
  /** How long a client may pause within the content of its request. */
  readonly bodyMs: number;
  /** The client has its answer, or has left. */
  readonly onOver: (exchange: Exchange) => void;
}

function ignore(): void {}

/** The connection was gone before the app said anything: a read may be asked again. */
const BROKEN_CONNECTION: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
]);

/**
 * One request through the sidecar: classify → (hold) → read small content → (hold) → decide → transfer → answer.
 * A write counts as in flight from being sent to the app until the app has answered.
 */
export class Exchange implements TransferHooks, HeldWrite, Gathered {
  place = 0;
  readonly #context: ExchangeContext;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #url: string;
  readonly #class: RouteClass;
  readonly requestId: string;
  readonly #startedAt = performance.now();
  #identity: Identity | undefined;
  #carried: readonly CausalCookie[] | undefined;
  #decision: Decision | undefined;
  #body: RequestBody = null;
  #transfer: Transfer | undefined;
  #leaveHold: (() => void) | undefined;
  #inFlight = false;
  #continueAsked: boolean;
  #status = 0;
  #isEventStream = false;
  #sets: readonly string[] = [];
  #fence: Fence | undefined;
  /** Was taken before this read, for what its client had seen by then, and has passed. */
  #redeemed: Fence | undefined;
  /** The app's answer was complete before its head was sent. */
  #isWhole = false;
  #shadowed: ShadowSample | undefined;
  #retried = false;
  /** The attempt that held it. */
  #heldBy: number | undefined;
  #over = false;

  constructor(
    context: ExchangeContext,
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ) {
    this.#context = context;
    this.#request = request;
    this.#response = response;
    this.#url = request.url ?? "/";
    this.#continueAsked = expectsContinue;
    this.#class = context.classify(request.method ?? "GET", this.#url);
    this.requestId = requestIdOf(request);
  }

  /** A stream has no end of its own: nothing waits for it to finish. */
  get isEndless(): boolean {
    return this.#class.kind === "stream" || this.#isEventStream;
  }

  start(): void {
    this.#response.on("close", () => this.#closed());
    // A client that breaks off is seen by `close`; its errors say no more.
    this.#response.on("error", ignore);
    this.#request.on("error", ignore);
    if (this.#mustWait()) this.#enterHold();
    else this.#readBody();
  }

  /** The hold is over. */
  go(): void {
    this.#leaveHold = undefined;
    if (this.#body === null) this.#readBody();
    else this.#dispatch();
  }

  refuse(_heldMs: number, why: "full" | "limit"): void {
    this.#leaveHold = undefined;
    this.#heldBy = undefined;
    sendOwnAnswer(this.#response, answerForHold(why), this.ownHeaders());
  }

  #mustWait(): boolean {
    return this.#class.kind === "write" && this.#context.hold.holds(this.requestId);
  }

  #enterHold(): void {
    this.#heldBy = this.#context.hold.attempt;
    this.#leaveHold = this.#context.hold.enter(this);
  }

  #readBody(): void {
    if (!hasBody(this.#request)) {
      this.#dispatch();
      return;
    }
    if (this.#continueAsked) this.#response.writeContinue();
    this.#continueAsked = false;
    if (!isReadFirst(this.#request)) {
      this.#body = streamBody(this.#request, this.#context.bodyMs);
      this.#dispatch();
      return;
    }
    readSmall(this.#request, this.#context.bodyMs, (body) => {
      this.#body = body;
      // A hold may have begun while a slow client was sending.
      if (this.#mustWait()) this.#enterHold();
      else this.#dispatch();
    });
  }

  #dispatch(): void {
    // The client left while its content was being read.
    if (this.#over) return;
    if (this.#mayRedeem()) {
      void this.#redeem();
      return;
    }
    const decision = this.#decide();
    if (this.#class.kind === "write") {
      this.#context.hold.begin(this.requestId);
      this.#inFlight = true;
    }
    this.#send(decision);
  }

  #mayRedeem(): boolean {
    const { kind, pin } = this.#class;
    if (kind !== "read" || pin !== undefined || this.#carries().length === 0) return false;
    return this.#context.causality.mayRedeem(() => this.#identify(), this.#carries());
  }

  async #redeem(): Promise<void> {
    this.#redeemed = await this.#context.causality.redeem();
    if (!this.#over) this.#send(this.#decide());
  }

  #decide(): Decision {
    const { causality, state } = this.#context;
    const { kind, pin } = this.#class;
    const facts =
      kind === "read" && pin === undefined
        ? causality.factsOf(() => this.#identify(), this.#proof())
        : NOT_A_READ;
    // What had to wait has waited by now.
    const asked = this.#context.askedSide(this.#request);
    const decision = route({ state: state(), kind, pin, asked, holding: false, ...facts });
    return isOptional(decision, state()) ? this.#sparing(decision) : decision;
  }

  /** Leaves a follower alone that does not answer. A request that tries it again may be answered by the authority. */
  #sparing(decision: Decision): Decision {
    const { breaker, state } = this.#context;
    const answer = breaker.ask(performance.now());
    if (answer === "go") return decision;
    if (answer === "probe") return { ...decision, fallback: true };
    return { side: state().authority, hold: false, reason: "resting", fallback: false };
  }

  #report(alive: boolean): void {
    const { breaker, state } = this.#context;
    if (this.#decision === undefined || !isOptional(this.#decision, state())) return;
    if (alive) breaker.answered();
    else breaker.failed(performance.now());
  }

  #send(decision: Decision): void {
    const { upstreams, timeouts } = this.#context;
    const { side } = decision;
    this.#decision = decision;
    this.#transfer = new Transfer(
      {
        request: this.#request,
        response: this.#response,
        upstream: upstreams[side],
        url: this.#url,
        headers: requestHeaders(
          this.#request,
          side,
          this.requestId,
          this.#context.causality.cookiePrefix,
        ),
        body: this.#body,
        headTimeoutMs: this.#mayFallBack() ? timeouts.fallbackHeadMs : timeouts.headMs,
      },
      this,
    );
    this.#transfer.start();
  }

  onHead(status: number, headers: string[]): "send" | "wait" | "drop" {
    this.#report(!isDead(status));
    if (status >= 500 && this.#mayFallBack()) return "drop";
    this.#status = status;
    this.#isEventStream =
      valueOf(headers, "content-type")?.startsWith("text/event-stream") === true;
    this.#sets = this.#context.causality.setBy(headers);
    if (this.#class.kind === "write")
      return this.#context.causality.need() === "none" ? "send" : "wait";
    if (this.#class.kind === "read") {
      this.#bindReader(true);
      this.#sample(headers);
    }
    return "send";
  }

  /** Some reads are asked of the other side too, once this client has its answer. */
  #sample(answer: readonly string[]): void {
    const { shadow } = this.#context;
    const side = this.#decision?.side;
    if (side === undefined || !this.#mayBeAskedAgain() || !shadow.wants(side)) return;
    this.#shadowed = shadow.take({
      method: this.#request.method ?? "GET",
      url: this.#url,
      body: Buffer.isBuffer(this.#body) ? this.#body : null,
      head: {
        status: this.#status,
        type: valueOf(answer, "content-type"),
        coding: valueOf(answer, "content-encoding"),
      },
      headers: (to) =>
        requestHeaders(this.#request, to, this.requestId, this.#context.causality.cookiePrefix),
    });
  }

  /** What a route pins to a side has no other side to compare with. */
  #mayBeAskedAgain(): boolean {
    const { pin } = this.#class;
    return (
      (pin === undefined || pin === "authority") && !this.#isStreamed() && !this.#isEventStream
    );
  }

  async settle(): Promise<void> {
    const { causality, fenceMs, strictMs } = this.#context;
    const need = causality.need();
    this.#fence = causality.wrote(() => this.#identify(), this.#sets);
    if (this.#fence === undefined) return;
    if (need === "until-passed") await causality.untilPassed(this.#fence, strictMs);
    // Not written in time: the client stays with the authority until it is, and has passed.
    else await this.#fence.written(fenceMs);
  }

  ownHeaders(): string[] {
    return [...this.#tokenFields(), ...this.#said()];
  }

  #tokenFields(): string[] {
    const { kind } = this.#class;
    if (this.#decision === undefined) return [];
    const written = this.#isWhole ? this.#fence : undefined;
    return this.#context.causality.tokenFields(() => this.#identify(), {
      kind,
      side: this.#decision.side,
      carried: this.#carries(),
      fence: kind === "read" ? this.#redeemed : written,
    });
  }

  /** What this sidecar says of the answer. */
  #said(): string[] {
    const { headers, causality } = this.#context;
    if (!headers || this.#decision === undefined) return [];
    const own = ["crossfade-side", this.#decision.side];
    if (this.#class.kind === "write" && causality.mirrored) {
      const passed = this.#fence !== undefined && causality.hasPassed(this.#fence);
      own.push("crossfade-mirrored", passed ? "yes" : "pending");
    }
    if (this.#class.kind === "read" && isAuthorityOnly(causality)) {
      own.push("crossfade-consistency", "authority-only");
    }
    return own;
  }

  onPart(part: Buffer): void {
    if (this.#class.kind === "read") this.#bindReader(false);
    this.#shadowed?.part(part);
  }

  onDone(settleFollows: boolean): void {
    this.#isWhole = settleFollows;
    // An app may write on while it answers: a long answer takes another fence at its end.
    if (this.#class.kind === "write" && !settleFollows) {
      this.#context.causality.wrote(() => this.#identify(), this.#sets);
    }
    this.#finish(this.#status >= 500);
  }

  onDropped(): void {
    this.#fallBack();
  }

  onFailed(error: Error, nothingSent: boolean): void {
    const { causality } = this.#context;
    if (this.#class.kind === "write") causality.mayHaveWritten(() => this.#identify());
    if (!(error instanceof ClientLeft) && !isUnsendable(error)) this.#report(false);
    if (!(error instanceof ClientLeft) && nothingSent && this.#recover(error)) return;
    this.#finish(!(error instanceof ClientLeft));
    if (nothingSent && this.#decision !== undefined) {
      sendOwnAnswer(
        this.#response,
        answerForFailure(this.#decision.side, error),
        this.ownHeaders(),
      );
    }
  }

  /** Asks again where that is safe: reads whose content is still at hand. */
  #recover(error: Error): boolean {
    if (this.#response.destroyed) return false;
    if (this.#mayFallBack()) {
      this.#fallBack();
      return true;
    }
    const again = this.#class.kind === "read" && !this.#retried && !this.#isStreamed();
    if (!again || !BROKEN_CONNECTION.has(codeOf(error)) || this.#decision === undefined)
      return false;
    this.#retried = true;
    this.#send(this.#decision);
    return true;
  }

  #mayFallBack(): boolean {
    return this.#decision?.fallback === true && this.#context.fallback && !this.#isStreamed();
  }

  #isStreamed(): boolean {
    return this.#body !== null && !Buffer.isBuffer(this.#body);
  }

  /** The authority answers what new could not. */
  #fallBack(): void {
    const { traffic, state } = this.#context;
    if (this.#decision !== undefined) {
      traffic.recordFallback(this.#decision.side, performance.now() - this.#startedAt);
    }
    if (this.#response.destroyed) return;
    this.#send({ side: state().authority, hold: false, reason: "fallback", fallback: false });
  }

  #bindReader(isHead: boolean): void {
    const { causality, state } = this.#context;
    if (!causality.gate.tracking) return;
    if (this.#decision?.side === state().authority) {
      causality.answeredByAuthority(() => this.#identify(), this.#sets);
    } else if (isHead) {
      causality.answeredByFollower(() => this.#identify(), this.#sets);
    }
  }

  #identify(): Identity {
    this.#identity ??= this.#context.causality.identify(this.#request);
    return this.#identity;
  }

  #carries(): readonly CausalCookie[] {
    this.#carried ??= this.#context.causality.carriedBy(this.#request);
    return this.#carried;
  }

  /** The tokens that a read is judged by. */
  #proof(): readonly CarriedToken[] {
    const token = this.#redeemed?.token;
    return token === undefined ? this.#carries() : [token];
  }

  #finish(failed: boolean): void {
    const { hold, traffic, held } = this.#context;
    if (this.#inFlight) hold.end(this.requestId);
    this.#inFlight = false;
    if (this.#decision !== undefined) {
      traffic.record(
        this.#decision.side,
        this.#class.kind,
        failed,
        performance.now() - this.#startedAt,
      );
    }
    if (this.#heldBy !== undefined) held.answered(this.#heldBy, failed);
  }

  #closed(): void {
    if (this.#over) return;
    this.#over = true;
    this.#leaveHold?.();
    this.#shadowed?.over(this.#response.writableFinished);
    if (!this.#response.writableFinished) this.#transfer?.abort();
    this.#context.onOver(this);
  }
}

const NOT_A_READ = { bucket: 0, share: 0, standing: "passed" } as const;

/** The phase sent a read to the follower: the authority could answer it as well. */
function isOptional({ side, reason }: Decision, { authority }: RoutingState): boolean {
  return reason === "phase" && side !== authority;
}

/** The phase sends reads to new, but this sidecar can keep its promises only with the authority. */
function isAuthorityOnly(causality: Causality): boolean {
  const { wanted, why } = causality.gate;
  return wanted > 0 && why !== undefined && why !== "opening";
}
