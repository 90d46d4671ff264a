import { z } from "zod";
import { count, duration, file, flag, listen, routeMatch, section, text } from "./fields.ts";
import { CONSISTENCIES, ROUTE_KINDS, TOKEN_CARRIERS } from "./words.ts";

/** Fields of `proxy:`. */

const clientSource = text(
  '"header:NAME", "cookie:NAME" or "ip"',
  (value) => value === "ip" || /^(header|cookie):[\w!#$%&'*+.^`|~-]+$/.test(value),
);

const route = section({
  match: routeMatch().describe(
    'Method and path: "POST /search", or "* /admin/*" for every method.',
  ),
  kind: z
    .enum(ROUTE_KINDS)
    .optional()
    .describe("What the route does. Default: by its method; needed where the method is *."),
  side: z
    .enum(["old", "new", "authority"])
    .optional()
    .describe("Always answered by this side, or by the one that takes writes."),
});

const clientTls = section({
  cert: file().describe("Certificate of the service, with its chain."),
  key: file().describe("Its private key, without a passphrase."),
  ca: file()
    .optional()
    .describe(
      "Authorities of clients: where it is set, a client without a certificate of theirs is refused.",
    ),
});

const limits = section({
  header_bytes: count(1_024, 16_777_216)
    .prefault(65_536)
    .describe("The largest head of a request, in bytes: beyond it 431."),
  header_timeout: duration({ max: "1d" })
    .prefault("60s")
    .describe("How long a client may take to send the head of a request."),
  body_timeout: duration({ max: "1d" })
    .prefault("60s")
    .describe("How long a client may pause within the content of a request; then it is cut off."),
  idle_timeout: duration({ max: "1d" })
    .prefault("72s")
    .describe(
      "How long a connection stays open between two requests. Longer than the load balancer in front keeps its own.",
    ),
  connections: count(1, 1_000_000)
    .prefault(50_000)
    .describe("How many clients may be connected to one sidecar at once; more are turned away."),
  connect_timeout: duration({ max: "1h" })
    .prefault("5s")
    .describe("How long connecting to an app may take."),
  answer_timeout: duration({ max: "1d" })
    .prefault("300s")
    .describe("How long an app may take to begin its answer; then 504."),
});

export const proxy = section({
  listen: listen()
    .prefault("127.0.0.1:8080")
    .describe("Where the sidecar listens for the service's traffic."),
  tls: clientTls
    .optional()
    .describe(
      "HTTPS towards clients, with HTTP/2 for those that ask for it. PEM files, read again when they change. Left out: plain HTTP.",
    ),
  client: section({
    by: z
      .array(clientSource)
      .min(1, { error: "found an empty list, expected at least one source" })
      .prefault(["header:authorization", "cookie:sid", "ip"])
      .describe(
        "Where a client's identity is taken from, the first that is there first: header:NAME, cookie:NAME, ip.",
      ),
  })
    .prefault({})
    .describe("Who a client is, for stickiness and for reading one's own writes."),
  consistency: z
    .enum(CONSISTENCIES)
    .prefault("causal")
    .describe(
      "causal: everybody reads their own writes. strict: a write answers when it is in both schemas. eventual: neither.",
    ),
  tokens: z
    .enum(TOKEN_CARRIERS)
    .optional()
    .describe(
      "How several sidecars know what a client has seen (consistency: causal). redis: they tell each other through the plan's redis. cookie: a signed cookie that each client carries. none: reads of several sidecars stay with the authority. Default: redis where redis is set, else none.",
    ),
  routes: z
    .array(route)
    .prefault([])
    .describe(
      "Routes that are not what their method says. Default: GET, HEAD and OPTIONS read, the rest write.",
    ),
  headers: flag()
    .prefault(true)
    .describe("Whether responses carry crossfade-side and crossfade-mirrored."),
  limits: limits.prefault({}).describe("What one client may take of a sidecar."),
  processes: count(1, 64)
    .prefault(1)
    .describe(
      "How many processes share the address, one for each core that the sidecar may use. They are sidecars of their own: tokens says how their clients keep reading their own writes. More than one: Linux or FreeBSD, and a listen with a port.",
    ),
  state: z
    .string()
    .min(1)
    .prefault(".crossfade")
    .describe(
      "Folder, seen from the plan's, where a sidecar remembers the last routing state for a restart without the control store.",
    ),
}).superRefine(({ listen: { port }, processes }, ctx) => {
  if (port !== 0 || processes === 1) return;
  ctx.addIssue({
    code: "custom",
    path: ["listen"],
    message: `found port 0, expected a port that ${processes} processes can share`,
  });
});
