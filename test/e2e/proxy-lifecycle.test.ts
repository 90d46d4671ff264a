import { once } from "node:events";
import { mkdtemp, readFile, stat, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../examples/support/free-port.ts";
import { FailStatic, failStaticFile } from "../../proxy/fail-static.ts";
import {
  HandSource,
  STATE,
  makePlan,
  quietLog,
  send,
  startApp,
  startTestSidecar,
} from "../support/sidecar.ts";

test("a port in use: says so before anything else starts", async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void taken.close());
  const { port } = taken.address() as AddressInfo;
  const source = new HandSource(undefined);
  let started = false;
  source.start = async () => {
    started = true;
  };
  const starting = startTestSidecar({ source, proxy: { listen: { host: "127.0.0.1", port } } });
  await expect(starting).rejects.toMatchObject({
    code: "PORT_IN_USE",
    message: `127.0.0.1:${port} is in use by another process`,
  });
  expect(started).toBe(false);
});

test("without the control store a sidecar goes on as it last knew; it never guesses the authority", async () => {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-proxy-"));
  const away = () => {
    const source = new HandSource(undefined);
    source.link({ connected: false });
    return source;
  };
  await expect(startTestSidecar({ folder, source: away() })).rejects.toMatchObject({
    code: "DATABASE_UNREACHABLE",
  });

  const apps = { old: await startApp("old"), new: await startApp("new") };
  const first = await startTestSidecar({ folder, ...apps });
  first.source.set({
    phase: "write-new",
    authority: "new",
    epoch: 4,
    hold: { attempt: 1, deadline: performance.now() + 60_000 },
  });
  await first.sidecar.close();

  const second = await startTestSidecar({ folder, ...apps, source: away() });
  const answer = await send(second.url, { method: "POST", body: "x" });
  expect([answer.status, answer.body]).toEqual([200, "new"]);
  second.source.set({ phase: "read-new", authority: "old", epoch: 5 });
  expect((await send(second.url, { method: "POST", body: "x" })).body).toBe("old");
});

test("the remembered state is for its owner only, and one that cannot be read is not used", async () => {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-proxy-"));
  const { sidecar, plan } = await startTestSidecar({ folder });
  await sidecar.close();
  const file = failStaticFile(plan);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({
    phase: "shadow",
    authority: "old",
  });
  await writeFile(file, '{"phase":"shadow"');
  expect(await new FailStatic(makePlan(folder, {}), quietLog).load()).toBeUndefined();
});

test("reads stay with the authority while cut off, also after a restart", async () => {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-proxy-"));
  const apps = { old: await startApp("old"), new: await startApp("new") };
  const first = await startTestSidecar({ folder, ...apps, state: { phase: "read-new" } });
  await first.sidecar.close();
  const source = new HandSource(undefined);
  source.link({ connected: false });
  const second = await startTestSidecar({ folder, ...apps, source });
  expect((await send(second.url)).headers).toMatchObject({
    "crossfade-side": "old",
    "crossfade-consistency": "authority-only",
  });
});

test("an upgrade whose client breaks off before the sidecar knows the state harms nobody", async () => {
  const old = await startApp("old");
  const source = new HandSource({ ...STATE });
  const known = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  source.start = async () => {
    asked.resolve();
    await known.promise;
  };
  const port = await freePort();
  const starting = startTestSidecar({
    old,
    source,
    proxy: { listen: { host: "127.0.0.1", port } },
  });
  await asked.promise;
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
  // Answered here, so what came before it has been read.
  const refused = async () => {
    const client = net.connect({ port, host: "127.0.0.1" }, () => client.write("no HTTP\r\n\r\n"));
    await once(client.resume(), "close");
  };
  await refused();
  socket.resetAndDestroy();
  await refused();
  const other = send(`http://127.0.0.1:${port}/`);
  known.resolve();
  await starting;
  expect((await other).body).toBe("old");
});

test("closing stops accepting, finishes what runs, and cuts what does not end", async () => {
  const answer = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const old = await startApp("old", async (request, response) => {
    if (request.url === "/events") {
      response.write("data: 1\n\n");
      return;
    }
    arrived.resolve();
    await answer.promise;
    response.end("done");
  });
  const { url, sidecar } = await startTestSidecar({
    old,
    limits: { drainMs: 5_000 },
    proxy: { routes: [{ method: "GET", path: "/events", kind: "stream", side: undefined }] },
  });
  const events = await new Promise<http.IncomingMessage>((resolve) =>
    http.get(`${url}/events`, resolve),
  );
  const cut = new Promise((resolve) => events.on("error", resolve));
  events.resume();
  const agent = new http.Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  const running = new Promise<http.IncomingMessage>((resolve) =>
    http.request(url, { method: "POST", agent }, resolve).end("x"),
  );
  await arrived.promise;
  const closing = sidecar.close();
  await expect
    .poll(async () =>
      send(url).then(
        () => "accepted",
        () => "refused",
      ),
    )
    .toBe("refused");
  answer.resolve();
  const last = await running;
  expect(await text(last)).toBe("done");
  // The client asks elsewhere next, and need not find out by a connection that breaks.
  expect(last.headers.connection).toBe("close");
  await closing;
  expect(await cut).toBeInstanceOf(Error);
});
