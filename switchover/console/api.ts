/** Talking to the operator API: a bearer token where there is one, errors as the API words them. */

const TOKEN_KEY = "crossfade-token";

/** Kept for this tab only, and for this origin with its port: a cookie would also be sent to the apps on this host. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY),
  set: (value: string) => sessionStorage.setItem(TOKEN_KEY, value),
  forget: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** What the API refused or failed at. `status` 0: it did not answer. */
export class ApiError extends Error {
  readonly status: number;
  readonly hint: string | undefined;

  constructor(status: number, message: string, hint?: string) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.hint = hint;
  }
}

interface CommandDocument {
  readonly id: number;
  readonly state: string;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly hint?: string };
}

/** Of a document whose shape the caller knows from the server's own types. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await ask("GET", path, undefined, signal)) as T;
}

/** Runs a command until it ends, however long that takes. Throws ApiError with the API's reason. */
export async function command<T>(kind: string, args: object): Promise<T> {
  let document = (await ask("POST", `v1/${kind}`, args)) as CommandDocument;
  while (document.state === "queued" || document.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, 500));
    document = await get<CommandDocument>(`v1/commands/${document.id}`);
  }
  if (document.error !== undefined)
    throw new ApiError(409, document.error.message, document.error.hint);
  return document.result as T;
}

async function ask(
  method: string,
  path: string,
  body?: object,
  signal?: AbortSignal,
): Promise<unknown> {
  const response = await open(method, path, body, signal);
  const document: unknown = await response.json().catch(() => ({}));
  if (response.ok) return document;
  const { error } = document as { error?: { message?: string; hint?: string } };
  throw new ApiError(
    response.status,
    error?.message ?? `the controller answered ${response.status}`,
    error?.hint,
  );
}

async function open(
  method: string,
  path: string,
  body: object | undefined,
  signal: AbortSignal | undefined,
): Promise<Response> {
  const headers = new Headers();
  const bearer = token.get();
  if (bearer !== null) headers.set("authorization", `Bearer ${bearer}`);
  if (body !== undefined) headers.set("content-type", "application/json");
  try {
    return await fetch(new URL(path, document.baseURI), {
      method,
      headers,
      cache: "no-store",
      credentials: "omit",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiError(0, "the controller does not answer");
  }
}

/** One server-sent event. */
export interface StreamEvent {
  readonly event: string;
  readonly data: string;
}

/**
 * Follows a stream of server-sent events until it ends. Not EventSource: that cannot send a token in a header, and a token
 * does not belong into a URL.
 */
export async function follow(
  path: string,
  { onEvent, onBytes }: { onEvent: (event: StreamEvent) => void; onBytes: () => void },
  signal: AbortSignal,
): Promise<void> {
  const response = await open("GET", path, undefined, signal);
  if (!response.ok || response.body === null)
    throw new ApiError(response.status, `${path}: the controller answered ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event !== undefined) onEvent(event);
    }
  }
}

function parseEvent(block: string): StreamEvent | undefined {
  const fields = block.split(/\r?\n/).map((line) => /^(\w+): ?(.*)$/.exec(line));
  const all = (name: string) =>
    fields.flatMap((field) => (field?.[1] === name ? [field[2] ?? ""] : []));
  const data = all("data");
  return data.length === 0
    ? undefined
    : { event: all("event")[0] ?? "message", data: data.join("\n") };
}
