import { once } from "node:events";
import { rename, rm, writeFile } from "node:fs/promises";
import https from "node:https";
import tls from "node:tls";
import type { ConnectionOptions, PeerCertificate, TLSSocket } from "node:tls";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import WebSocket, { WebSocketServer } from "ws";
import type { Log } from "../../config/lifecycle.ts";
import { loadPlan } from "../../config/load.ts";
import { requireTlsFiles } from "../../config/tls-files.ts";
import { startByteApp } from "../support/byte-app.ts";
import { createAuthority, writePem } from "../support/certificates.ts";
import type { Authority } from "../support/certificates.ts";
import { writePlanFile } from "../support/plan-files.ts";
import { quietLog, send, startTestSidecar } from "../support/sidecar.ts";

let authority: Authority;
let stranger: Authority;
beforeAll(async () => {
  authority = await createAuthority();
  stranger = await createAuthority("Stranger");
});

/** Sends bytes over TLS; resolves with all that came back. */
async function overTls(port: number, bytes: string, options: ConnectionOptions = {}) {
  const socket = await connected(port, options);
  let text = "";
  socket.on("data", (part: Buffer) => (text += part.toString("latin1")));
  socket.write(bytes, "latin1");
  await once(socket, "close");
  return text;
}

async function connected(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = tls.connect({ port, host: "127.0.0.1", ca: authority.cert, ...options });
  onTestFinished(() => void socket.destroy());
  await once(socket, "secureConnect");
  socket.on("error", () => {});
  return socket;
}

const GET = "GET / HTTP/1.1\r\nHost: shop\r\nX-Odd: \xe9\r\nConnection: close\r\n\r\n";
const nameOf = (socket: TLSSocket) => (socket.getPeerCertificate() as PeerCertificate).subject.CN;

describe("towards clients", () => {
  async function secured(withClients = false) {
    const old = await startByteApp();
    const files = await writePem({ ...(await authority.issue("shop.test")), ca: authority.cert });
    const { cert, key, ca } = files;
    const proxy = { tls: { cert, key, ca: withClients ? ca : undefined } };
    const sidecar = await startTestSidecar({
      old: old.url,
      proxy,
      limits: { tlsLookMs: 20 },
    });
    return { old, files, ...sidecar };
  }

  test("a request over TLS arrives byte-true, and the app hears of https", async () => {
    const { old, port, url } = await secured();
    expect(url).toMatch(/^https:/);
    expect(await overTls(port, GET)).toMatch(/^HTTP\/1\.1 200 OK\r\n.*ok$/s);
    expect(old.bytes()).toContain("X-Odd: \xe9\r\n");
    expect(old.bytes()).toContain("x-forwarded-proto: https\r\n");
  });

  test("smuggling is refused as without TLS", async () => {
    const { old, port } = await secured();
    const both =
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc";
    expect(await overTls(port, both)).toMatch(/^HTTP\/1\.1 400 /);
    expect(old.bytes()).toBe("");
  });

  test("with an authority of clients only theirs get in", async () => {
    const { old, port } = await secured(true);
    const none = overTls(port, GET).catch((error: Error) => error.message);
    expect(await none).not.toContain("200 OK");
    const foreign = await stranger.issue("client.test");
    expect(await overTls(port, GET, foreign).catch(() => "refused")).not.toContain("200 OK");
    expect(old.bytes()).toBe("");
    expect(await overTls(port, GET, await authority.issue("client.test"))).toContain("200 OK");
  });

  test("a renewed certificate counts for new connections; the old ones go on; a bad file changes nothing", async () => {
    const { port, files } = await secured();
    const before = await connected(port);
    expect(nameOf(before)).toBe("shop.test");
    const renewed = await authority.issue("renewed.test");
    // Half of it: a key that does not fit.
    await writeFile(`${files.key}.new`, renewed.key);
    await rename(`${files.key}.new`, files.key);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(nameOf(await connected(port))).toBe("shop.test");
    await writeFile(files.cert, renewed.cert);
    await expect.poll(async () => nameOf(await connected(port))).toBe("renewed.test");
    before.write(GET, "latin1");
    const [answer] = (await once(before, "data")) as [Buffer];
    expect(answer.toString()).toContain("200 OK");
  });

  test("WebSocket over TLS, to an app over TLS", async () => {
    const app = await startByteApp({ tls: await authority.issue("app.test") });
    const wss = new WebSocketServer({ server: app.server });
    wss.on("connection", (socket) => socket.on("message", (data) => socket.send(data)));
    const files = await writePem({ ...(await authority.issue("shop.test")), ca: authority.cert });
    const { port } = await startTestSidecar({
      old: app.url,
      appTls: { ca: files.ca, serverName: "app.test" },
      proxy: { tls: { cert: files.cert, key: files.key } },
    });
    const socket = new WebSocket(`wss://127.0.0.1:${port}/ws`, { ca: authority.cert });
    onTestFinished(() => socket.terminate());
    await once(socket, "open");
    socket.send("hello");
    const [echo] = (await once(socket, "message")) as [Buffer];
    expect(echo.toString()).toBe("hello");
  });

  test.each([
    [{}, false],
    [{ "x-forwarded-proto": "https" }, true],
  ])("without TLS here, %o: Secure is %s", async (headers, secure) => {
    const { url } = await withCookies({});
    expect(await tokenCookie(url, headers)).toBe(secure);
  });

  test("a causal cookie set over TLS is Secure", async () => {
    const { cert, key } = await writePem(await authority.issue("shop.test"));
    const { url } = await withCookies({ tls: { cert, key } });
    expect(await tokenCookie(url, {})).toBe(true);
  });

  async function withCookies(proxy: { tls?: { cert: string; key: string } }) {
    const old = await startByteApp();
    return startTestSidecar({
      old: old.url,
      state: { phase: "read-new" },
      proxy: { tokens: "cookie", ...proxy },
    });
  }

  async function tokenCookie(url: string, headers: Record<string, string>) {
    const fields = await new Promise<readonly string[]>((resolve, reject) => {
      const client = url.startsWith("https") ? https.request : undefined;
      if (client === undefined) {
        send(url, { method: "POST", body: "x", headers }).then(
          (answer) => resolve(answer.headers["set-cookie"] ?? []),
          reject,
        );
        return;
      }
      const request = client(url, { method: "POST", headers, ca: authority.cert, agent: false });
      request.on("error", reject);
      request.on("response", (answer) => resolve(answer.resume().headers["set-cookie"] ?? []));
      request.end("x");
    });
    const own = fields.filter((field) => field.startsWith("crossfade_"));
    expect(own).toHaveLength(1);
    return own[0]?.includes("; Secure");
  }
});

describe("towards apps", () => {
  function hearing() {
    const warned: object[] = [];
    const log: Log = { ...quietLog, warn: (fields: object) => void warned.push(fields) };
    return { warned, log };
  }

  test("an app with a certificate of its own authority, which wants ours", async () => {
    const app = await startByteApp({
      tls: { ...(await authority.issue("app.test")), ca: authority.cert, requestCert: true },
    });
    const files = await writePem({
      ...(await authority.issue("sidecar.test")),
      ca: authority.cert,
    });
    const appTls = { ...files, serverName: undefined };
    const { url } = await startTestSidecar({ old: app.url, appTls });
    const answer = await send(`${url}/a%2Fb`, { method: "POST", body: "abc" });
    expect([answer.status, answer.body, app.whole]).toEqual([200, "ok", ["abc"]]);
    expect(app.bytes()).toMatch(/^POST \/a%2Fb HTTP\/1\.1\r\n/);
  });

  test("an app of an unknown authority is not reached; why is logged", async () => {
    const app = await startByteApp({ tls: await stranger.issue("app.test") });
    const { ca } = await writePem({ ca: authority.cert });
    const { warned, log } = hearing();
    const { url, sidecar } = await startTestSidecar({
      old: app.url,
      appTls: { ca, serverName: undefined },
      log,
    });
    const answer = await send(`${url}/`);
    expect(answer.status).toBe(502);
    expect(answer.body).toContain("UNABLE_TO_VERIFY_LEAF_SIGNATURE");
    expect(app.bytes()).toBe("");
    expect(warned).toMatchObject([{ side: "old", code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" }]);
    expect(sidecar.stats().traffic).not.toEqual([]);
  });

  test("an app with another name is not reached, nor one that wants a certificate and gets none", async () => {
    const certificate = await authority.issue("app.test");
    const { ca } = await writePem({ ca: authority.cert });
    const named = await startByteApp({ tls: certificate });
    const { url: other } = await startTestSidecar({
      old: named.url,
      appTls: { ca, serverName: "other.test" },
    });
    expect((await send(`${other}/`)).body).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    const strict = await startByteApp({
      tls: { ...certificate, ca: authority.cert, requestCert: true, rejectUnauthorized: true },
    });
    const { warned, log } = hearing();
    const { url } = await startTestSidecar({
      old: strict.url,
      appTls: { ca, serverName: undefined },
      log,
    });
    expect((await send(`${url}/`, { method: "POST", body: "x" })).status).toBe(502);
    expect(strict.whole).toEqual([]);
    expect(warned).not.toEqual([]);
  });

  test("new in canary with a bad certificate: old answers, and it is counted", async () => {
    const bad = await startByteApp({ tls: await stranger.issue("app.test") });
    const old = await startByteApp();
    const { url, sidecar } = await startTestSidecar({
      old: old.url,
      new: bad.url,
      state: { phase: "canary", readsNew: 1 },
    });
    await expect
      .poll(async () => {
        expect((await send(`${url}/`)).status).toBe(200);
        return sidecar.stats().fallbacks;
      })
      .toBeGreaterThan(0);
  });
});

describe("plans", () => {
  async function issuesOf(change: (paths: Record<string, string>) => Promise<object>) {
    const paths = await writePem({ ...(await authority.issue("a.test")), ca: authority.cert });
    const side = (name: string) => ({
      database: `postgres://a@127.0.0.1:9/${name}`,
      app: `http://${name}`,
    });
    const plan = {
      name: "t",
      old: side("o"),
      new: side("n"),
      forward: "identity",
      ...(await change(paths)),
    };
    try {
      requireTlsFiles(loadPlan(writePlanFile(plan), {}));
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  }

  test("files that are not there, not PEM or do not fit are named", async () => {
    expect(
      await issuesOf(async ({ cert, key, ca }) => ({ proxy: { tls: { cert, key, ca } } })),
    ).toBe("");
    const wrong = await issuesOf(async ({ cert = "", key = "", ca = "" }) => {
      await rm(cert);
      await writeFile(ca, "none");
      return { proxy: { tls: { cert, key, ca } } };
    });
    expect(wrong).toContain("proxy.tls.cert: found no file /");
    expect(wrong).toContain("proxy.tls.ca: found no certificate in ");
    const other = await issuesOf(async ({ cert, key = "" }) => {
      await writeFile(key, (await authority.issue("b.test")).key);
      return { proxy: { tls: { cert, key } } };
    });
    expect(other).toContain("proxy.tls.key: found a key in ");
    expect(other).not.toContain("PRIVATE KEY");
    expect(
      await issuesOf(async ({ key = "" }) => {
        await writeFile(key, "secret");
        return { proxy: { tls: { cert: key, key } } };
      }),
    ).toMatch(/proxy\.tls\.cert: found no certificate.*proxy\.tls\.key: found no private key/s);
  });

  test("tls of an app without https, and half a pair", async () => {
    const app = "https://app.test";
    const database = "postgres://a@127.0.0.1:9/o";
    expect(
      await issuesOf(async ({ ca }) => ({ old: { database, app: "http://x", tls: { ca } } })),
    ).toContain("old.tls: found tls for an app that is not https://");
    expect(
      await issuesOf(async ({ cert }) => ({ old: { database, app, tls: { cert } } })),
    ).toContain("old.tls.key: found nothing");
  });
});
