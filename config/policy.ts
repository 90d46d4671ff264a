import { Cron } from "croner";
import { z } from "zod";
import { count, duration, flag, phaseName, section, share, text } from "./fields.ts";
import { NO_SERVER_LIMITS, serverLimits } from "./server-limits.ts";
import type { ServerLimits } from "./server-limits.ts";
import { PHASES, isPhase } from "./words.ts";
import type { Phase } from "./words.ts";

/** What the plan asks of transitions beyond the gates' limits: stays, windows, hooks, and when to go back by itself. */

export interface PolicyPlan {
  /** Shortest stay in a phase before the next is entered, ms. */
  readonly stayMs: Readonly<Partial<Record<Phase, number>>>;
  /** When a phase may be entered: in every minute that the pattern names. */
  readonly windows: Readonly<Partial<Record<Phase, WindowPlan>>>;
  /** undefined: `rollback_on: off`. */
  readonly rollbackOn: RollbackOnPlan | undefined;
  readonly hooks: Readonly<Partial<Record<Phase, HooksPlan>>>;
  /** How old the last good drill may be before write-new; undefined: none is asked for. */
  readonly drillMaxAgeMs: number | undefined;
  readonly servers: ServerLimits;
}

export interface WindowPlan {
  readonly cron: string;
  /** IANA name. */
  readonly zone: string;
}

export interface RollbackOnPlan {
  /** Share of requests that the new app fails. */
  readonly errors: number;
  /** Of the new app, ms; undefined: latency is no trigger. */
  readonly p99Ms: number | undefined;
  /** Share of compared reads that differ; undefined: no trigger. */
  readonly mismatch: number | undefined;
  readonly lagMs: number | undefined;
  /** A comparison of all tables that found differences. */
  readonly verify: boolean;
  readonly samples: number;
  readonly withinMs: number;
  readonly cooldownMs: number;
}

export interface HooksPlan {
  readonly before: readonly HookPlan[];
  readonly after: readonly HookPlan[];
}

export type HookPlan = { readonly timeoutMs: number } & (
  | { readonly run: readonly string[] }
  /** A secret: it may carry a token. */
  | { readonly http: string }
);

/** Of a plan that asks for nothing. */
export const NO_POLICY: PolicyPlan = {
  stayMs: {},
  windows: {},
  rollbackOn: undefined,
  hooks: {},
  drillMaxAgeMs: undefined,
  servers: NO_SERVER_LIMITS,
};

const anyPhase = () => text(`a phase: ${PHASES.join(", ")}`, (value) => isPhase(value));

const url = () => text("an http:// or https:// URL", (value) => /^https?:\/\/\S+$/.test(value));

const window = section({
  cron: text("a cron pattern such as * 9-16 * * 1-5", (value) => isCron(value, "UTC")).describe(
    "Cron pattern: the phase may be entered in every minute it names. `* 9-16 * * 1-5`: working days, 9:00 to 16:59.",
  ),
  zone: text("a time zone such as Europe/Berlin", (value) => isCron("* * * * *", value))
    .prefault("UTC")
    .describe("Time zone of the pattern, such as Europe/Berlin."),
});

const timeout = duration({ max: "1h" })
  .prefault("30s")
  .describe("How long it may take; longer counts as failed.");

const hook = z.union(
  [
    section({
      run: z
        .array(text("a word of the command"))
        .min(1, { error: "found an empty list, expected a command" })
        .describe("Command and arguments; no shell. Started in the plan's folder."),
      timeout,
    }),
    section({ http: url().describe("URL that gets a POST; 2xx is success."), timeout }),
  ],
  { error: "a map of run (a list: command and arguments) or http (a URL), and timeout" },
);

const hooks = section({
  before: z
    .array(hook)
    .prefault([])
    .describe("Before the phase is entered, when its gates have passed; a failure stops it."),
  after: z
    .array(hook)
    .prefault([])
    .describe("After the phase is entered; a failure is recorded and changes nothing."),
});

const rollbackOn = z.union(
  [
    z.literal("off"),
    section({
      errors: share()
        .prefault("5%")
        .describe("Share of requests the new app fails (5xx or no answer)."),
      p99: duration({ max: "1h" })
        .optional()
        .describe("p99 of the new app. Left out: latency is no trigger."),
      mismatch: share()
        .optional()
        .describe("Share of shadow reads that differ. Left out: no trigger."),
      lag: duration()
        .optional()
        .describe("Lag of the mirror. Left out: no trigger; reads leave new at gates.lag anyway."),
      verify: flag()
        .prefault(false)
        .describe("Whether a comparison of all tables that found differences is a trigger."),
      samples: count(1, 1e9)
        .prefault(100)
        .describe("Requests there must be within the time before errors or latency count."),
      within: duration({ min: "1s", max: "1h" })
        .prefault("30s")
        .describe("The time that errors, latency and lag are looked at over."),
      cooldown: duration()
        .prefault("1h")
        .describe(
          "After a rollback of its own Crossfade leaves further ones to people for this long.",
        ),
    }),
  ],
  { error: "off, or a map of errors, p99, mismatch, lag, verify, samples, within and cooldown" },
);

/** The part of the plan file this page is about. */
export const policyFields = {
  stay: z
    .record(anyPhase(), duration())
    .prefault({})
    .describe("Shortest stay in a phase before the next may be entered, such as shadow: 1h."),
  windows: z
    .record(phaseName(), window)
    .prefault({})
    .describe("When a phase may be entered. Going back is never bound to a window."),
  rollback_on: rollbackOn
    .prefault({})
    .describe(
      "What makes Crossfade go back by itself from canary, read-new and write-new to the phase before; `off`: nothing.",
    ),
  hooks: z
    .record(anyPhase(), hooks)
    .prefault({})
    .describe(
      "Your own commands and URLs at the entry into a phase, forward or back. They get the migration as JSON on stdin or as body.",
    ),
} as const;

/** `gates.drill`. */
export const drillField = section({
  max_age: duration().describe("How old the last good drill may be, such as 7d."),
})
  .optional()
  .describe("A good drill before write-new. Left out: none is asked for.");

type Fields = { [Key in keyof typeof policyFields]: z.output<(typeof policyFields)[Key]> };

/** The part of `gates` this page is about. */
type GateFields = { readonly drill?: z.output<typeof drillField> } & Parameters<
  typeof serverLimits
>[0];

/** From what the file says to what the other modules use. */
export function normalisePolicy(fields: Fields, gates: GateFields): PolicyPlan {
  const on = fields.rollback_on;
  return {
    stayMs: fields.stay as PolicyPlan["stayMs"],
    windows: fields.windows as PolicyPlan["windows"],
    rollbackOn:
      on === "off"
        ? undefined
        : {
            errors: on.errors,
            p99Ms: on.p99,
            mismatch: on.mismatch,
            lagMs: on.lag,
            verify: on.verify,
            samples: on.samples,
            withinMs: on.within,
            cooldownMs: on.cooldown,
          },
    hooks: Object.fromEntries(
      Object.entries(fields.hooks).map(([phase, { before, after }]) => [
        phase,
        { before: before.map(toHook), after: after.map(toHook) },
      ]),
    ),
    drillMaxAgeMs: gates.drill?.max_age,
    servers: serverLimits(gates),
  };
}

function toHook(entry: z.output<typeof hook>): HookPlan {
  return "run" in entry
    ? { run: entry.run, timeoutMs: entry.timeout }
    : { http: entry.http, timeoutMs: entry.timeout };
}

function isCron(pattern: string, timezone: string): boolean {
  try {
    return new Cron(pattern, { timezone }).nextRun() !== null;
  } catch {
    return false;
  }
}
