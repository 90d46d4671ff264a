import { isDeepStrictEqual } from "node:util";
import type { Pool } from "undici";
import { type Conversation, recategorise } from "../colonycraft/api.ts";
import type { Random } from "./random.ts";
import { type Answer, Service, type ServiceRequest } from "./traffic-service.ts";
import type { TrafficRecorder } from "./traffic-counters.ts";

/** What a client's acknowledged writes have made of one conversation. */
export interface Expected {
  /** null: deleted. */
  readonly conversation: Conversation | null;
  /** Acknowledged writes that led there. */
  readonly writes: number;
}

export interface TrafficClientOptions {
  readonly name: string;
  readonly pool: Pool;
  readonly random: Random;
  readonly recorder: TrafficRecorder;
  /** Nobody else may write these users' conversations: so the client knows what every one of them must look like. */
  readonly users: readonly string[];
  /** Read without checking: others write them. */
  readonly others: readonly string[];
}

const NAMES = [
  "work",
  "home",
  "travel",
  "recipes",
  "später",
  "O'Neill",
  'say "hi"',
  "back\\slash",
  "日本語",
  "a:b",
] as const;
const GET = { method: "GET" } as const;
/** A write is followed by a read of the same thing: this share of steps makes three writes in ten requests. */
const WRITE_STEPS = 3 / 7;

/** One user of the service: does one thing after the other and remembers what every answer must show from then on. */
export class TrafficClient {
  readonly #options: TrafficClientOptions;
  readonly #service: Service;
  /** Own conversations that exist, as they must be seen. */
  readonly #known = new Map<string, Conversation>();
  readonly #expected = new Map<string, Expected>();
  /** The conversation of each own user that was written last. */
  readonly #latest = new Map<string, string>();
  #gone: string[] = [];
  #uncertain = new Set<string>();
  #ids: string[] = [];
  #serial = 0;

  constructor(options: TrafficClientOptions) {
    this.#options = options;
    this.#service = new Service(options);
  }

  get expected(): ReadonlyMap<string, Expected> {
    return this.#expected;
  }

  /** A read, or a write and the read that checks it. Returns how many requests that were. */
  async step(): Promise<number> {
    if (this.#options.random.chance(WRITE_STEPS)) return this.#write();
    await this.#read();
    return 1;
  }

  async #read(): Promise<void> {
    const { random, users, others } = this.#options;
    const kind = random.next();
    if (kind < 0.6 && this.#ids.length > 0) return this.#checkOne(random.pick(this.#ids));
    if (kind < 0.9 || others.length === 0) return this.#checkList(random.pick(users));
    await this.#send("reads", GET, `/conversations?user=${random.pick(others)}&limit=10`, 200);
  }

  async #write(): Promise<number> {
    const { random } = this.#options;
    const kind = random.next();
    const id = this.#ids.length === 0 ? undefined : random.pick(this.#ids);
    if (id === undefined || kind < 0.3) return this.#checked(await this.#create());
    if (kind < 0.55) return this.#checked(await this.#update(id));
    if (kind < 0.82) return this.#checked(await this.#recategorise(id));
    if (kind < 0.97) return this.#checked(await this.#remove(id));
    return this.#checked(await this.#createAgain(id));
  }

  /** Reads back what a write left, alone or in its user's list. undefined: the write failed, nothing is known. */
  async #checked(id: string | undefined): Promise<number> {
    if (id === undefined) return 1;
    const user = this.#known.get(id)?.user;
    if (user !== undefined && this.#options.random.chance(0.2)) await this.#checkList(user);
    else await this.#checkOne(id);
    return 2;
  }

  async #create(): Promise<string | undefined> {
    const { random, users } = this.#options;
    // Ids that were deleted come back now and then: a late copy of the delete must not take the new row away.
    const again =
      this.#gone.length > 0 && random.chance(0.3)
        ? this.#gone.splice(random.integer(this.#gone.length), 1)[0]
        : undefined;
    const id = again ?? random.uuid();
    const content = { title: this.#title(), tags: this.#tags(), metadata: this.#metadata() };
    const body = { id, user: random.pick(users), ...content };
    return this.#put(id, { method: "POST", body }, "/conversations", { status: 201, body });
  }

  async #update(id: string): Promise<string | undefined> {
    const { random } = this.#options;
    const title = this.#title();
    const change = random.chance(0.5)
      ? { title }
      : { title, tags: this.#tags(), metadata: this.#metadata() };
    const method = "tags" in change && random.chance(0.5) ? "PUT" : "PATCH";
    return this.#put(id, { method, body: change }, `/conversations/${id}`, {
      status: 200,
      body: change,
    });
  }

  async #recategorise(id: string): Promise<string | undefined> {
    const category = this.#options.random.chance(0.1) ? null : this.#options.random.pick(NAMES);
    const tags = recategorise(this.#known.get(id)?.tags ?? [], category);
    const request = { method: "PUT", body: { category } } as const;
    return this.#put(id, request, `/conversations/${id}/category`, {
      status: 200,
      body: { category, tags },
    });
  }

  async #remove(id: string): Promise<string | undefined> {
    const answer = await this.#send("writes", { method: "DELETE" }, `/conversations/${id}`, 204);
    if (!answer.ok) return this.#unwritten(id, answer);
    this.#remember(id, null);
    return id;
  }

  /** The id is taken, on whichever side. */
  async #createAgain(id: string): Promise<string | undefined> {
    const body = {
      id,
      user: this.#options.random.pick(this.#options.users),
      title: "never stored",
    };
    const answer = await this.#send("writes", { method: "POST", body }, "/conversations", 409);
    return answer.ok ? id : this.#unwritten(id, answer);
  }

  async #put(
    id: string,
    request: { method: "POST" | "PUT" | "PATCH"; body: object },
    path: string,
    wanted: { status: number; body: object },
  ): Promise<string | undefined> {
    const before = this.#known.get(id);
    const answer = await this.#send("writes", request, path, wanted.status);
    if (!answer.ok) return this.#unwritten(id, answer);
    const found = answer.body as Conversation;
    // From now on the conversation must be what it was made, not what the answer says: an answer without an earlier
    // write must not make us forget that write. Only the times are the app's to choose.
    const must = { ...found, ...before, ...wanted.body, updated_at: found.updated_at };
    const conversation = { ...must, category: must.tags[0] ?? null };
    this.#remember(id, conversation);
    this.#compare(`${request.method} ${path}`, found, conversation);
    return id;
  }

  #remember(id: string, conversation: Conversation | null): void {
    const user = conversation?.user ?? this.#known.get(id)?.user;
    this.#options.recorder.acknowledged();
    this.#expected.set(id, { conversation, writes: (this.#expected.get(id)?.writes ?? 0) + 1 });
    if (conversation === null) {
      this.#forget(id);
      this.#gone.push(id);
      if (user !== undefined) this.#latest.delete(user);
      return;
    }
    if (!this.#known.has(id)) this.#ids.push(id);
    this.#known.set(id, conversation);
    this.#latest.set(conversation.user, id);
  }

  #forget(id: string): void {
    this.#known.delete(id);
    this.#ids = this.#ids.filter((other) => other !== id);
  }

  /**
   * A write that failed. A refusal (4xx) was not applied: what was expected stays so. Of anything else nobody knows
   * whether it was, so no statement about this conversation holds any more.
   */
  #unwritten(id: string, { status }: Answer): undefined {
    if (status >= 400 && status < 500) return undefined;
    const user = this.#known.get(id)?.user;
    if (user !== undefined) this.#latest.delete(user);
    this.#options.recorder.uncertain();
    this.#forget(id);
    this.#expected.delete(id);
    this.#uncertain.add(id);
    return undefined;
  }

  async #checkOne(id: string): Promise<void> {
    const must = this.#known.get(id);
    const path = `/conversations/${id}`;
    const answer = await this.#send("reads", GET, path, 200, 404);
    if (!answer.ok) return;
    if (answer.status === 404) return this.#compare(`GET ${path}`, undefined, must);
    return this.#compare(`GET ${path}`, answer.body as Conversation, must);
  }

  async #checkList(user: string): Promise<void> {
    const path = `/conversations?user=${user}&limit=20`;
    const answer = await this.#send("reads", GET, path, 200);
    if (!answer.ok) return;
    const { conversations } = answer.body as { conversations: Conversation[] };
    for (const found of conversations) {
      if (this.#uncertain.has(found.id)) continue;
      const must = this.#known.get(found.id);
      if (must !== undefined || this.#expected.has(found.id))
        this.#compare(`GET ${path}`, found, must);
      else this.#adopt(found);
    }
    const latest = this.#latest.get(user);
    if (latest === undefined || conversations.some(({ id }) => id === latest)) return;
    this.#compare(`GET ${path}`, undefined, this.#known.get(latest));
  }

  /** A conversation that was there before the traffic: own from now on. */
  #adopt(conversation: Conversation): void {
    this.#known.set(conversation.id, conversation);
    this.#ids.push(conversation.id);
  }

  #compare(request: string, found: Conversation | undefined, must: Conversation | undefined): void {
    const { recorder, name } = this.#options;
    if (isDeepStrictEqual(found, must)) return recorder.checked();
    const show = (value: Conversation | undefined) =>
      value === undefined ? "nothing" : JSON.stringify(value);
    recorder.checked({
      client: name,
      request,
      why: `showed ${show(found)} after ${show(must)} was acknowledged`,
    });
  }

  #send(
    kind: "reads" | "writes",
    request: Omit<ServiceRequest, "path">,
    path: string,
    ...expected: number[]
  ) {
    return this.#service.send(kind, { ...request, path }, expected);
  }

  #title(): string {
    return `${this.#options.name} #${++this.#serial} – ${this.#options.random.pick(NAMES)}`;
  }

  #tags(): string[] {
    const { random } = this.#options;
    const start = random.integer(NAMES.length);
    const count = random.chance(0.2) ? 0 : 1 + random.integer(4);
    return Array.from({ length: count }, (_, i) => NAMES[(start + i * 3) % NAMES.length]!);
  }

  #metadata(): Record<string, unknown> {
    const { random } = this.#options;
    return {
      model: random.pick(["small", "medium", "large"]),
      messages: random.integer(1000),
      ...(random.chance(0.1) ? { pinned: true } : {}),
    };
  }
}
