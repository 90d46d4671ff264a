import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import httpProxy from "@fastify/http-proxy";
import fastify from "fastify";
import { type Dispatcher, Pool } from "undici";

/** The proxies the sidecar is measured against, each as a process: `node reference-proxies.ts undici|http-proxy UPSTREAM`. Prints its port. */
const [kind, upstream = ""] = process.argv.slice(2);
const port = kind === "undici" ? await bareUndici() : await plainHttpProxy();
process.stdout.write(`${port}\n`);
process.on("disconnect", () => process.exit(0));

/** node:http in front, undici `dispatch` behind, nothing else: the last part is sent with the end. */
async function bareUndici(): Promise<number> {
  const pool = new Pool(upstream, { connections: 64 });
  const server = createServer((request, response) => {
    pool.dispatch(
      {
        method: request.method as Dispatcher.HttpMethod,
        path: request.url ?? "/",
        headers: request.rawHeaders,
        body: request.method === "GET" ? null : request,
      },
      new Passing(request, response),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return address !== null && typeof address === "object" ? address.port : 0;
}

class Passing implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse;
  #last: Buffer | undefined;

  constructor(_request: IncomingMessage, response: ServerResponse) {
    this.#response = response;
  }

  onRequestStart(): void {}

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: NodeJS.Dict<string | string[]>,
  ): void {
    this.#response.writeHead(status, headers as Record<string, string>);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#last !== undefined) this.#response.write(this.#last);
    this.#last = chunk;
  }

  onResponseEnd(): void {
    this.#response.end(this.#last);
  }

  onResponseError(): void {
    this.#response.destroy();
  }
}

async function plainHttpProxy(): Promise<number> {
  const server = fastify();
  await server.register(httpProxy, { upstream });
  const url = await server.listen({ host: "127.0.0.1", port: 0 });
  return Number(new URL(url).port);
}
