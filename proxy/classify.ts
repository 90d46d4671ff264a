import findMyWay from "find-my-way";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { RoutePlan } from "../config/plan-types.ts";
import type { RouteKind } from "../config/words.ts";

export interface RouteClass {
  readonly kind: RouteKind;
  readonly pin: RoutePlan["side"];
  /** Its name in the metrics. */
  readonly route: string;
}

/** What no route of the plan names. */
const OTHER = "other";
const READ: RouteClass = { kind: "read", pin: undefined, route: OTHER };
const WRITE: RouteClass = { kind: "write", pin: undefined, route: OTHER };
/** More routes than this are `other` in the metrics: each is several series there. */
const MAX_NAMED = 100;
const READING_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

export type Classify = (method: string, url: string) => RouteClass;

/**
 * Makes the classifier of a plan's routes (find-my-way's syntax, as in fastify). What no route names: GET, HEAD and OPTIONS
 * read, everything else writes. An upgrade is a stream wherever it goes; its route only gives the pin.
 */
export function createClassifier(routes: readonly RoutePlan[]): Classify {
  if (routes.length === 0) return byMethod;
  const router = findMyWay();
  for (const [index, route] of routes.entries()) addRoute(router, route, index < MAX_NAMED);
  return (method, url) => {
    const found = router.find(method as findMyWay.HTTPMethod, url);
    return found === null ? byMethod(method) : (found.store as RouteClass);
  };
}

function byMethod(method: string): RouteClass {
  return isReading(method) ? READ : WRITE;
}

/** What HTTP calls safe (RFC 9110 §9.2.1). */
export function isReading(method: string): boolean {
  return READING_METHODS.has(method);
}

type Router = ReturnType<typeof findMyWay>;

function addRoute(router: Router, route: RoutePlan, isNamed: boolean): void {
  const name = isNamed ? `${route.method} ${route.path}` : OTHER;
  const store: RouteClass = { kind: route.kind, pin: route.side, route: name };
  const never = () => {};
  try {
    if (route.method === "*") router.all(route.path, never, store);
    else router.on(route.method as findMyWay.HTTPMethod, route.path, never, store);
  } catch (error) {
    throw new CrossfadeError(
      "PLAN_INVALID",
      `proxy.routes: "${route.method} ${route.path}": ${messageOf(error)}`,
    );
  }
}
