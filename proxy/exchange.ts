import { isDead } from "./breaker.ts";
import { isReading } from "./classify.ts";
import type { RouteClass } from "./classify.ts";
import type { ExchangeContext } from "./exchange-context.ts";
import { ExchangeTokens } from "./exchange-tokens.ts";
import type { Gathered } from "./gathering.ts";
import { headBytes, requestHeaders, saysNotApplied, valueOf } from "./headers.ts";
import type { HeldWrite } from "./hold.ts";
import type { ClientRequest, ClientResponse } from "./inbound.ts";
import {
  answerForFailure,
  answerForHold,
  answerForMaintenance,
  codeOf,
  isUnsendable,
  sendOwnAnswer,
} from "./replies.ts";
import { hasBody, isReadFirst, readSmall, streamBody } from "./request-body.ts";
import type { RequestBody } from "./request-body.ts";
import { requestIdOf } from "./request-id.ts";
import { route } from "./route.ts";
import type { Decision } from "./route.ts";
import type { ShadowSample } from "./shadow/shadow.ts";
import { reportAlive, spare } from "./sparing.ts";
import type { RequestTrace } from "./trace/ports.ts";
import { ClientLeft, Transfer } from "./transfer.ts";
import type { TransferHooks } from "./transfer.ts";
import { WriteFlight } from "./write-flight.ts";

function ignore(): void {}

/** A write that is refused again and again gets the app's answer. */
const MOST_REPEATS = 3;

/** The connection was gone before the app said anything: a read may be asked again. */
const BROKEN_CONNECTION: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
]);

/**
 * One request through the sidecar: classify → (hold) → read small content → (hold) → decide → transfer → answer.
 */
export class Exchange implements TransferHooks, HeldWrite, Gathered {
  place = 0;
  readonly #context: ExchangeContext;
  readonly #request: ClientRequest;
  readonly #response: ClientResponse;
  readonly #url: string;
  readonly #class: RouteClass;
  readonly #tokens: ExchangeTokens;
  readonly requestId: string;
  readonly #trace: RequestTrace | undefined;
  readonly #startedAt = performance.now();
  #decision: Decision | undefined;
  #body: RequestBody = null;
  #transfer: Transfer | undefined;
  #leaveHold: (() => void) | undefined;
  #flight: WriteFlight | undefined;
  #continueAsked: boolean;
  #status = 0;
  #isEventStream = false;
  #shadowed: ShadowSample | undefined;
  #retried = false;
  /** How often a write was sent again. */
  #repeats = 0;
  /** The app has said that nothing of this write was applied, and it may be sent again. */
  #isRefused = false;
  /** The attempt that held it. */
  #heldBy: number | undefined;
  #over = false;

  constructor(
    context: ExchangeContext,
    request: ClientRequest,
    response: ClientResponse,
    expectsContinue: boolean,
  ) {
    this.#context = context;
    this.#request = request;
    this.#response = response;
    this.#url = request.url ?? "/";
    this.#continueAsked = expectsContinue;
    this.#class = context.classify(request.method ?? "GET", this.#url);
    this.requestId = requestIdOf(request);
    this.#trace = context.tracing?.begin(request, this.#class, this.requestId);
    this.#tokens = new ExchangeTokens(context, request, this.#class, this.#trace);
  }

  /** A stream has no end of its own: nothing waits for it to finish. */
  get isEndless(): boolean {
    return this.#class.kind === "stream" || this.#isEventStream;
  }

  get bytes(): number {
    const content = Buffer.isBuffer(this.#body) ? this.#body.length : 0;
    return headBytes(this.#url, this.#request.rawHeaders) + content;
  }

  start(): void {
    this.#response.on("close", () => this.#closed());
    // A client that breaks off is seen by `close`; its errors say no more.
    this.#response.on("error", ignore);
    this.#request.on("error", ignore);
    if (this.#isTurnedAway()) return;
    if (this.#mustWait()) this.#enterHold();
    else this.#readBody();
  }

  /** The sidecar stops: what the client asks next it asks elsewhere, and need not find out by a connection that breaks. */
  endConnection(): void {
    this.#response.shouldKeepAlive = false;
  }

  /** The hold is over. */
  go(): void {
    this.#leaveHold = undefined;
    this.#trace?.released();
    if (this.#isTurnedAway()) this.#heldBy = undefined;
    else if (this.#body === null) this.#readBody();
    else this.#dispatch();
  }

  refuse(_heldMs: number, why: "full" | "limit"): void {
    this.#leaveHold = undefined;
    this.#heldBy = undefined;
    sendOwnAnswer(this.#response, answerForHold(why), this.ownHeaders());
  }

  /** In maintenance a write is answered at once, before its content is read. */
  #isTurnedAway(): boolean {
    if (this.#class.kind !== "write") return false;
    const { maintenance } = this.#context.state();
    if (maintenance === null || this.#context.hold.isCaused(this.requestId)) return false;
    const answer = answerForMaintenance(maintenance, this.#context.retryAfterMs);
    sendOwnAnswer(this.#response, answer, this.ownHeaders());
    return true;
  }

  #mustWait(): boolean {
    return this.#class.kind === "write" && this.#context.hold.holds(this.requestId);
  }

  #enterHold(): void {
    this.#heldBy = this.#context.hold.attempt;
    this.#trace?.held();
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
    const ready = this.#tokens.ready();
    if (ready === undefined) this.#ask();
    else void this.#askAfter(ready);
  }

  async #askAfter(ready: Promise<void>): Promise<void> {
    await ready;
    if (!this.#over) this.#ask();
  }

  #ask(): void {
    const decision = this.#decide();
    const { hold, state } = this.#context;
    if (this.#class.kind === "write")
      this.#flight = new WriteFlight(hold, this.requestId, state().epoch);
    this.#send(decision);
  }

  #decide(): Decision {
    const { state } = this.#context;
    const { kind, pin } = this.#class;
    // What had to wait has waited by now.
    const asked = this.#context.askedSide(this.#request);
    const decision = route({
      state: state(),
      kind,
      pin,
      asked,
      holding: false,
      ...this.#tokens.facts(),
    });
    return spare(decision, this.#context);
  }

  #send(decision: Decision): void {
    const { upstreams, timeouts, state } = this.#context;
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
          this.#trace?.ask(decision, state()),
        ),
        body: this.#body,
        headTimeoutMs: this.#mayFallBack() ? timeouts.fallbackHeadMs : timeouts.headMs,
      },
      this,
    );
    this.#transfer.start();
  }

  onHead(status: number, headers: string[]): "send" | "wait" | "drop" {
    reportAlive(this.#decision, !isDead(status), this.#context);
    this.#status = status;
    if (status >= 500 && this.#mayFallBack()) return "drop";
    this.#isEventStream =
      valueOf(headers, "content-type")?.startsWith("text/event-stream") === true;
    const verdict = this.#tokens.onHead(headers, this.#decision?.side);
    if (this.#class.kind === "read") this.#sample(headers);
    return this.#isNotDone(headers) ? "wait" : verdict;
  }

  /** The app has not done this write, and says that it may be sent again. */
  #isNotDone(headers: readonly string[]): boolean {
    if (this.#class.kind !== "write" || this.#status < 400) return false;
    const mayBeRepeated =
      (this.#class.pin === undefined || this.#class.pin === "authority") &&
      !this.#isStreamed() &&
      this.#repeats < MOST_REPEATS;
    this.#isRefused = mayBeRepeated && saysNotApplied(headers);
    // A flip need not wait for it: the app is done with it.
    if (this.#isRefused) this.#flight?.end();
    else if (this.#status >= 500) this.#context.refusals.suspect();
    return this.#isRefused;
  }

  /** Some reads are asked of the other side too, once this client has its answer. */
  #sample(answer: readonly string[]): void {
    const { shadow } = this.#context;
    const side = this.#decision?.side;
    // The answer before broke off, and the app was asked once more.
    this.#shadowed?.over(false);
    this.#shadowed = undefined;
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

  async settle(): Promise<"send" | "drop"> {
    if (this.#isRefused && this.#flight !== undefined) {
      if (await this.#context.refusals.isOutdated(this.#flight.epoch)) return "drop";
      this.#isRefused = false;
      this.#reportHeld(this.#status >= 500);
    }
    await this.#tokens.settle();
    return "send";
  }

  ownHeaders(): string[] {
    return this.#decision === undefined ? [] : this.#tokens.headers(this.#decision.side);
  }

  onPart(part: Buffer): void {
    this.#tokens.onPart(this.#decision?.side);
    this.#shadowed?.part(part);
  }

  /** At the end of an event stream apps write what was said in it. */
  onBackpressure(isOn: boolean): void {
    if (!this.#isEventStream) this.#flight?.onBackpressure(isOn);
  }

  onDone(settleFollows: boolean): void {
    this.#trace?.answered(this.#status);
    this.#tokens.onDone(settleFollows);
    this.#finish(this.#status >= 500);
  }

  onDropped(): void {
    this.#trace?.answered(this.#status);
    if (this.#isRefused) this.#repeat();
    else this.#fallBack();
  }

  /** Nothing of it was applied: it is held, or sent, as if it had come now. */
  #repeat(): void {
    this.#isRefused = false;
    this.#repeats += 1;
    this.#status = 0;
    if (this.#response.destroyed) return;
    if (this.#mustWait()) this.#enterHold();
    else if (!this.#isTurnedAway()) this.#dispatch();
  }

  onFailed(error: Error, nothingSent: boolean): void {
    this.#trace?.answered(0, error);
    this.#tokens.onFailed();
    if (!(error instanceof ClientLeft) && !isUnsendable(error)) {
      reportAlive(this.#decision, false, this.#context);
    }
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
    const again = this.#isSafe() && !this.#retried && !this.#isStreamed();
    if (!again || !BROKEN_CONNECTION.has(codeOf(error)) || this.#decision === undefined)
      return false;
    this.#retried = true;
    this.#send(this.#decision);
    return true;
  }

  /** Asking changes nothing: a read, or a stream that HTTP calls safe. */
  #isSafe(): boolean {
    const { kind } = this.#class;
    return kind === "read" || (kind === "stream" && isReading(this.#request.method ?? "GET"));
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
      const on = { side: this.#decision.side, kind: this.#class.kind, route: this.#class.route };
      traffic.recordFallback(on, this.#status, performance.now() - this.#startedAt);
    }
    this.#status = 0;
    if (this.#response.destroyed) return;
    this.#send({ side: state().authority, hold: false, reason: "fallback", fallback: false });
  }

  #finish(failed: boolean): void {
    const { traffic } = this.#context;
    this.#flight?.end();
    if (this.#decision !== undefined) {
      const on = { side: this.#decision.side, kind: this.#class.kind, route: this.#class.route };
      traffic.record(on, this.#status, failed, performance.now() - this.#startedAt);
    }
    if (!this.#isRefused) this.#reportHeld(failed);
  }

  /** The end of a write that was held, once. */
  #reportHeld(failed: boolean): void {
    if (this.#heldBy !== undefined) this.#context.held.answered(this.#heldBy, failed);
    this.#heldBy = undefined;
  }

  #closed(): void {
    if (this.#over) return;
    this.#over = true;
    this.#leaveHold?.();
    this.#shadowed?.over(this.#response.writableFinished);
    if (!this.#response.writableFinished) this.#transfer?.abort();
    this.#trace?.end(this.#response.headersSent ? this.#response.statusCode : 0);
    this.#context.onOver(this);
  }
}
