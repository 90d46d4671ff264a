import { randomBytes } from "node:crypto";
import { messageOf } from "../config/errors.ts";
import type { RoundTrip, VerifyExample } from "../store/control/verify-runs.ts";
import { chunkRanges } from "../store/postgres/chunks.ts";
import { compareChunk } from "../store/postgres/compare.ts";
import { type Engine, openEngine } from "../store/postgres/engine.ts";
import { type OwnedTarget, ownedTargets } from "../store/postgres/orphans.ts";
import type { SyncContext } from "../store/postgres/sync.ts";
import { settleDifferences, settleOrphans } from "./settle.ts";
import { shownValue, verifyExamples } from "./verify-examples.ts";
import type { VerifyOptions } from "./verify.ts";

/** Rows of old made into rows of new at a time. */
const ROWS_PER_CHUNK = 20_000;

type Example = VerifyExample & { readonly table: string };

/**
 * Proves that going back loses nothing of what was written on new: forward(reverse(row)) = row. Old is what reverse made
 * of new (a clean comparison has just said so), so forward over old must give new as it stands; a row that does not come
 * back as it is, or that nothing in old would bring back, failed. Shared rows (`own: none`) that no row of old needs are
 * nobody's and not looked for. Changes nothing.
 */
export async function proveRoundTrip(
  options: VerifyOptions,
  reverse: SyncContext,
): Promise<RoundTrip> {
  const { plan, epoch, log } = options;
  const found = { compared: 0, failed: 0, examples: [] as Example[] };
  let engine: Engine | undefined;
  try {
    engine = await openEngine({
      plan,
      direction: "forward",
      epoch,
      role: "round-trip",
      instance: randomBytes(3).toString("hex"),
      statementTimeoutMs: 3_600_000,
    });
    for await (const part of parts(options, engine.context, reverse)) {
      found.compared += part.compared;
      found.failed += part.failed;
      found.examples.push(...part.examples);
    }
    return { ...found, examples: found.examples.slice(0, plan.verify.examples), error: null };
  } catch (error) {
    log.warn({ err: error }, `verify: the round trip is not proved: ${messageOf(error)}`);
    return {
      ...found,
      examples: found.examples.slice(0, plan.verify.examples),
      error: messageOf(error),
    };
  } finally {
    await engine?.close();
  }
}

interface Part {
  readonly compared: number;
  readonly failed: number;
  readonly examples: readonly Example[];
}

async function* parts(
  options: VerifyOptions,
  context: SyncContext,
  reverse: SyncContext,
): AsyncGenerator<Part> {
  for (const driver of context.compiled.drivers) {
    for (const chunk of await chunkRanges(
      context.compiled,
      driver,
      context.source,
      ROWS_PER_CHUNK,
    )) {
      options.signal?.throwIfAborted();
      const started = performance.now();
      const all = () => true;
      const found = await compareChunk(context, driver, chunk, all);
      const { remaining } = await settleDifferences(context, driver, found.differences, {
        repair: false,
        wanted: all,
        log: options.log,
        fences: reverse,
      });
      const examples = await verifyExamples(context, driver, remaining, options.plan.verify);
      yield {
        compared: found.compared,
        failed: remaining.length,
        examples: examples.map((example) => ({ table: driver.name, ...example })),
      };
      await options.rest?.(performance.now() - started);
    }
  }
  for (const target of ownedTargets(context.compiled)) {
    options.signal?.throwIfAborted();
    yield await unowned(options, context, reverse, target);
  }
  await context.shapes.check();
}

/** Rows of new that no row of old would bring back: reverse leaves them out. */
async function unowned(
  { plan, log }: VerifyOptions,
  context: SyncContext,
  reverse: SyncContext,
  target: OwnedTarget,
): Promise<Part> {
  const { remaining } = await settleOrphans(context, target, {
    repair: false,
    log,
    fences: reverse,
  });
  const { redact } = plan.verify;
  const examples = remaining.slice(0, plan.verify.examples).map((key) => ({
    table: target.name,
    kind: "extra" as const,
    key: Object.fromEntries(
      target.key.map((name, i) => [
        name,
        shownValue({ redact }, target.name, name, key[i] ?? null),
      ]),
    ),
  }));
  return { compared: 0, failed: remaining.length, examples };
}
