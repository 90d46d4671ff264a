import { createServer, connect, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A TCP line to a server that can be cut and mended, as a network partition would. */
export class CuttableProxy {
  readonly #target: { readonly host: string; readonly port: number };
  /** Each with the one its data goes to. */
  readonly #sockets = new Map<Socket, Socket>();
  #stalled: PromiseWithResolvers<void> | undefined;
  readonly #server = createServer((client) => void this.#join(client));
  #cut = false;
  #left = Number.POSITIVE_INFINITY;

  private constructor(target: { host: string; port: number }) {
    this.#target = target;
  }

  static async open(target: { host: string; port: number }): Promise<CuttableProxy> {
    const proxy = new CuttableProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      proxy.cut();
      proxy.#server.close();
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends every connection and refuses new ones. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  /** Ends every connection once `bytes` more have passed, in the middle of whatever is under way. */
  cutAfter(bytes: number): void {
    this.#left = bytes;
  }

  /** Lets nothing through any more, and ends nothing: neither end learns of it until the line is mended. */
  stall(): void {
    this.#stalled ??= Promise.withResolvers();
    for (const [socket, other] of this.#sockets) {
      socket.unpipe(other);
      socket.pause();
    }
  }

  mend(): void {
    this.#cut = false;
    this.#left = Number.POSITIVE_INFINITY;
    if (this.#stalled === undefined) return;
    this.#stalled.resolve();
    this.#stalled = undefined;
    for (const [socket, other] of this.#sockets) socket.pipe(other);
  }

  async #join(client: Socket): Promise<void> {
    client.on("error", () => {});
    await this.#stalled?.promise;
    if (this.#cut) {
      client.destroy();
      return;
    }
    const server = connect(this.#target.port, this.#target.host);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.set(socket, other);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      // A cut line is what the test is about; both ends see it as a broken connection.
      socket.on("error", () => {});
      socket.on("data", (data: Buffer) => this.#count(data.length));
      socket.pipe(other);
    }
  }

  #count(bytes: number): void {
    this.#left -= bytes;
    if (this.#left >= 0) return;
    this.#left = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets.keys()) socket.destroy();
  }
}
