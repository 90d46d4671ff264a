import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** A client that has so many requests waiting behind one is cut off: each is kept in memory. */
const MOST_WAITING = 1_000;

const waiting = new WeakMap<Socket, number>();

/**
 * Begins a request once the answer before it on its connection is out. Node hands out all that a client has sent in one go (pipelining), and
 * each would go to the app over a connection of its own: writes would overtake each other, and a read the write before it.
 * RFC 9112 §9.3.2 wants them done as if one by one. A client that leaves meanwhile has not begun.
 */
export function inTurn(response: ServerResponse, begin: () => void): void {
  // A response is given the connection when its turn has come.
  if (response.socket !== null) {
    begin();
    return;
  }
  const { socket, headers } = response.req;
  // It gets no tunnel (upgrades.ts), and Node drops what came in one piece with it.
  if (headers.upgrade !== undefined) response.shouldKeepAlive = false;
  const others = waiting.get(socket) ?? 0;
  if (others >= MOST_WAITING) {
    socket.destroy();
    return;
  }
  waiting.set(socket, others + 1);
  response.once("socket", () => {
    waiting.set(socket, (waiting.get(socket) ?? 1) - 1);
    begin();
  });
}
