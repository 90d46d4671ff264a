import { mayDo, parseTokens, roleOfToken } from "../config/operator-tokens.ts";
import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import type { ClientRequest } from "./inbound.ts";

export type AskedSide = (request: ClientRequest) => Side | undefined;

/**
 * The side that a request names in `crossfade-side`, where its `crossfade-token` is one of the plan's operator tokens (role operator or more). From
 * anybody else the field means nothing. A field of its own, because `authorization` belongs to the app; neither goes there.
 */
export function createAskedSide(operatorTokens: string | undefined): AskedSide {
  const tokens = parseTokens(operatorTokens);
  if (tokens.length === 0) return () => undefined;
  return ({ headers }) => {
    const side = SIDES.find((one) => one === headers["crossfade-side"]);
    const token = headers["crossfade-token"];
    if (side === undefined || typeof token !== "string") return undefined;
    const role = roleOfToken(tokens, token);
    return role !== undefined && mayDo(role, "operator") ? side : undefined;
  };
}
