import type { Plan } from "../../config/plan-types.ts";
import { sideLabel } from "../../store/postgres/session.ts";
import type { Feed } from "../../store/postgres/feed.ts";
import { acceptGap, findGap } from "../../store/postgres/identity.ts";
import { feedIsComplete, requireFeedKind } from "../../store/postgres/install-feed.ts";
import { publicationName } from "../../store/postgres/install-wal-feed.ts";
import type { SyncContext } from "../../store/postgres/sync.ts";
import { TriggerFeed } from "../../store/postgres/trigger-feed.ts";
import { WalFeed } from "../../store/postgres/wal-feed.ts";
import { beginAt, closeGap, findWalGap, openAfterGap } from "../../store/postgres/wal-position.ts";
import { findSlot } from "../../store/postgres/wal-slot.ts";

export interface OpenFeedOptions {
  readonly plan: Plan;
  readonly context: SyncContext;
  readonly application: string;
  /** There is something to do: somebody waits for what has arrived, or nothing had for a while. */
  readonly wake: () => void;
  /** Sends all reads to the authority and has every table copied again. Called again when copying may begin. */
  readonly onGap: (gap: string) => Promise<void>;
  /** Throws when waiting is over. */
  readonly pause: () => Promise<void>;
}

/** Opens the feed of the active direction where the target's position says, after closing the gap if there is one. */
export async function openFeed(options: OpenFeedOptions): Promise<Feed> {
  const { plan, context } = options;
  const { compiled, source } = context;
  await requireFeedKind(source, compiled.source, plan.feed);
  const gap = (await findGap(compiled, source, context.target)) ?? (await gapOfSlot(options));
  if (gap !== undefined) await goOnAfter(gap, options);
  return plan.feed === "wal" ? openWalFeed(options) : new TriggerFeed(compiled.source, source);
}

async function gapOfSlot({ plan, context }: OpenFeedOptions): Promise<string | undefined> {
  const { compiled, epoch, source, target } = context;
  return plan.feed === "wal" ? findWalGap(compiled, epoch, source, target) : undefined;
}

/**
 * The gap is accepted last: dying anywhere here only finds it again. What the controller copies before there is a slot
 * may be older than the slot; so the gap is reported a second time, and everything copied after that.
 */
async function goOnAfter(gap: string, options: OpenFeedOptions): Promise<void> {
  const { plan, context, onGap, pause } = options;
  const { compiled, epoch, source, target } = context;
  await onGap(gap);
  if (plan.feed === "wal") {
    await openAfterGap(compiled, epoch, source);
    while (!(await feedIsComplete(source, compiled.source))) await pause();
    await onGap(gap);
  }
  await acceptGap(compiled, source, target, epoch);
  if (plan.feed === "wal") await closeGap(compiled, epoch, source, target);
}

async function openWalFeed({ plan, context, application, wake }: OpenFeedOptions): Promise<Feed> {
  const { compiled, epoch, source, target } = context;
  const from = await beginAt(compiled, epoch, source, target);
  const slot = await findSlot(source, compiled.source);
  return WalFeed.open({
    side: compiled.source,
    client: source,
    logged: compiled.logged,
    onFence: wake,
    onArrival: wake,
    stream: {
      url: plan[compiled.source].database,
      name: sideLabel(compiled.source),
      application,
      slot: slot?.name ?? "",
      publication: publicationName(compiled.source),
      from,
    },
  });
}
