import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply } from "fastify";
import type pg from "pg";
import { WebSocketServer } from "ws";
import {
  closeOnSignal,
  type ConversationStore,
  createApi,
  listen,
} from "../../examples/colonycraft/api.ts";
import { openPool } from "../../examples/colonycraft/database.ts";

/** Messages larger than this are no part of the soak. */
const LARGEST_MESSAGE = 1 << 20;

/** Runs one app of the example, with what a service has besides requests: WebSockets, uploads and event streams. */
export async function runSoakApp(createStore: (pool: pg.Pool) => ConversationStore): Promise<void> {
  const { DATABASE_URL: databaseUrl, PORT: port } = process.env;
  if (databaseUrl === undefined || port === undefined)
    throw new Error("DATABASE_URL or PORT is not set");
  const app = createApi(createStore(openPool({ databaseUrl })));
  addEcho(app);
  addUploads(app);
  addEvents(app);
  closeOnSignal(await listen(app, Number(port)));
}

/** `/soak/echo`: every message comes back. */
function addEcho(app: FastifyInstance): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: LARGEST_MESSAGE });
  app.server.on("upgrade", (request, socket, head) => {
    if (request.url !== "/soak/echo") {
      socket.destroy();
      return;
    }
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on("error", () => client.terminate());
      client.on("message", (data, isBinary) => client.send(data, { binary: isBinary }));
    });
  });
}

/** `POST /soak/upload`: answers how much came and its checksum. */
function addUploads(app: FastifyInstance): void {
  app.addContentTypeParser("application/octet-stream", (_request, payload, done) =>
    done(null, payload),
  );
  app.post<{ Body: Readable }>("/soak/upload", async ({ body }) => {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    return { bytes, sha256: hash.digest("hex") };
  });
}

/** `GET /soak/events?count=&every=`: so many numbered events at this distance in milliseconds, then one of type `end`. */
function addEvents(app: FastifyInstance): void {
  app.get<{ Querystring: { count: string; every: string } }>(
    "/soak/events",
    async ({ query }, reply) => {
      await sendEvents(reply, Number(query.count), Number(query.every));
    },
  );
}

async function sendEvents(reply: FastifyReply, count: number, every: number): Promise<void> {
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  for (let n = 0; n < count && !raw.destroyed; n += 1) {
    raw.write(`id: ${n}\ndata: event number ${n}\n\n`);
    await sleep(every);
  }
  raw.end(`event: end\nid: ${count}\ndata: over\n\n`);
}
