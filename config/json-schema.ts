import { z } from "zod";
import { planSchema } from "./schema.ts";

/** The JSON Schema of the plan file, for editors: what a user may write, before defaults. */
export function planJsonSchema(): Record<string, unknown> {
  return { title: "Crossfade plan", ...z.toJSONSchema(planSchema, { io: "input" }) };
}
