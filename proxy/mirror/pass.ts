import type { Log } from "../../config/lifecycle.ts";
import type { Feed, FeedBatch } from "../../store/postgres/feed.ts";
import type { CompiledDirection, Driver } from "../../store/postgres/mapping.ts";
import { deleteOrphans, type OwnedTarget, ownedTargets } from "../../store/postgres/orphans.ts";
import { listQuarantine, type QuarantineRow } from "../../store/postgres/quarantine.ts";
import {
  ALL_STRIPES,
  CatalogMoved,
  ChunkPlanMoved,
  flushCommits,
  type Scope,
  type SyncContext,
  syncAndSave,
  type SyncTransaction,
} from "../../store/postgres/sync.ts";
import type { Key } from "../../store/postgres/key-scope.ts";
import { isRefusal, type KeySyncOptions, syncKeys } from "../../store/postgres/sync-keys.ts";
import { prepareForBatch } from "../../store/postgres/statement.ts";
import { type ChangedKeys, changedKeys } from "./changed-keys.ts";
import { KnownStripes } from "./known-stripes.ts";

/** What one pass did. */
export interface PassResult {
  readonly keys: number;
  /** The highest fence that counts as passed. */
  readonly fence: bigint;
  /** Number of the pass, stored with the rows. */
  readonly pass: bigint;
  /** From the oldest change's entry in the log to its commit on the target, ms; 0 without changes. */
  readonly lagMs: number;
  readonly size: number;
  readonly full: boolean;
  /** A fence was among what was read: somebody waits for what comes after it, too. */
  readonly fenceRead: boolean;
  /** Trace contexts of the fences among it, and what the pass took. */
  readonly traces: readonly string[];
  readonly tookMs: number;
  readonly deferred: number;
}

const BATCH = 5_000;
/** So often the position is looked for by its key: only that takes dead versions away. */
const BY_KEY_EVERY = 100n;
/** A place that no row has. */
const NOWHERE = "(0,0)";

/**
 * The mirror's pass: read the feed, sync the keys, save the position — rows and position in one commit on the target,
 * and only once that is on the disk tell the source. Dying anywhere in between costs a repetition, never a change.
 */
export class Passes {
  readonly #context: SyncContext;
  readonly #feed: Feed;
  readonly #log: Log;
  readonly #onFence: (passed: bigint) => void;
  readonly #stripes = new KnownStripes();
  #planVersions: ReadonlyMap<number, number> = new Map();
  /** Set while keys are deferred: they are synced together once this fence was read (DESIGN §2.9). */
  #healAfter: bigint | undefined;
  #deferred = 0;
  /** Where on disk the last pass left the row with the position. */
  #place = NOWHERE;

  /** `onFence` hears of passed fences as soon as they count, which is before the source is told. */
  constructor(
    context: SyncContext,
    feed: Feed,
    log: Log,
    onFence: (passed: bigint) => void = () => {},
  ) {
    this.#context = context;
    this.#feed = feed;
    this.#log = log;
    this.#onFence = onFence;
  }

  /** Learns what an earlier mirror left deferred. Call once before the first pass. */
  async start(): Promise<void> {
    const rows = await listQuarantine(this.#context.target, this.#context.compiled.direction);
    this.#deferred = rows.filter((row) => row.state === "deferred").length;
    if (this.#deferred > 0) this.#healAfter = await this.#feed.writeFence();
  }

  /** Undefined if the feed had nothing. Throws STALE when direction or epoch moved on. */
  async run(): Promise<PassResult | undefined> {
    const started = performance.now();
    const batch = await this.#feed.read(BATCH);
    if (batch.size === 0) return undefined;
    const keys = await changedKeys(this.#context.compiled, batch, this.#context.source);
    const saved = await this.#commit(batch, keys);
    if (!saved.durable) await flushCommits(this.#context.target);
    if (batch.fence !== undefined) this.#onFence(saved.fence);
    const lagMs = batch.changes.length === 0 ? 0 : batch.oldestAgeMs + performance.now() - started;
    await this.#feed.confirm(batch, saved.pass);
    if (saved.newlyDeferred) this.#healAfter = await this.#feed.writeFence();
    return {
      keys: countKeys(keys),
      fence: saved.fence,
      pass: saved.pass,
      lagMs,
      size: batch.size,
      full: batch.full,
      fenceRead: batch.fence !== undefined,
      traces: batch.traces,
      tookMs: performance.now() - started,
      deferred: this.#deferred,
    };
  }

  async #commit(batch: FeedBatch, keys: ChangedKeys): Promise<Saved> {
    let careful = false;
    for (;;) {
      try {
        const scopes = await this.#scopes(batch, keys);
        return await this.#commitOnce(batch, keys, scopes, careful);
      } catch (error) {
        if (error instanceof ChunkPlanMoved) {
          this.#planVersions = error.versions;
        } else if (error instanceof CatalogMoved) {
          this.#log.debug({ err: error }, "mirror: catalogs moved; the pass is made again");
        } else if (isRefusal(error) && !careful) {
          this.#log.info({ err: error }, "mirror: the target refuses a row; looking for it");
          careful = true;
        } else {
          throw error;
        }
      }
    }
  }

  async #commitOnce(
    batch: FeedBatch,
    keys: ChangedKeys,
    scopes: readonly Scope[],
    careful: boolean,
  ): Promise<Saved> {
    const heal =
      this.#healAfter !== undefined && batch.fence !== undefined && batch.fence >= this.#healAfter;
    const lockAll = heal
      ? this.#context.compiled.drivers.map((driver) => this.#allStripes(driver))
      : [];
    const { result: deferred, saved } = await syncAndSave(
      this.#context,
      [...scopes, ...lockAll],
      (transaction) => this.#syncAll(transaction, batch, keys, careful, heal),
      {
        save: await this.#positionSql(batch),
        looks: heal || careful ? "last" : this.#looks(batch, keys),
        durable: false,
      },
    );
    const [position] = saved;
    if (position === undefined)
      throw new Error(`crossfade.position has no row for ${this.#context.compiled.direction}`);
    const pass = BigInt(position[1] ?? 0);
    this.#place = pass % BY_KEY_EVERY === 0n ? NOWHERE : (position[3] ?? NOWHERE);
    if (heal) this.#healAfter = undefined;
    this.#deferred = heal ? deferred : this.#deferred + deferred;
    return {
      fence: BigInt(position[0] ?? 0),
      pass,
      durable: position[2] !== null,
      newlyDeferred: deferred > 0,
    };
  }

  /** A fence must not pass before the source's tables were looked at, also where nothing is read of them. */
  #looks(batch: FeedBatch, keys: ChangedKeys): "reads" | "first" | "last" {
    const { compiled } = this.#context;
    if (targetsTruncated(compiled, batch).length > 0) return "last";
    if (countKeys(keys) === 0) return "first";
    // Elsewhere more is read of the source than rows by key.
    return compiled.direction === "forward" && !compiled.sameDatabase ? "reads" : "last";
  }

  /** Returns how many keys were deferred. */
  async #syncAll(
    transaction: SyncTransaction,
    batch: FeedBatch,
    keys: ChangedKeys,
    careful: boolean,
    heal: boolean,
  ): Promise<number> {
    let deferred = 0;
    const waiting = heal ? await this.#deferredKeys() : [];
    for (const driver of this.#context.compiled.drivers) {
      deferred += await this.#sync(transaction, driver, keys.get(driver) ?? [], {
        careful,
        defer: true,
      });
    }
    const truncated = targetsTruncated(this.#context.compiled, batch);
    if (waiting.length > 0 || truncated.length > 0) await transaction.later.send();
    for (const target of truncated) await deleteOrphans(this.#context, target);
    return waiting.length > 0 ? this.#heal(transaction, waiting, keys) : deferred;
  }

  async #deferredKeys(): Promise<readonly QuarantineRow[]> {
    const rows = await listQuarantine(this.#context.target, this.#context.compiled.direction);
    return rows.filter((row) => row.state === "deferred");
  }

  /**
   * All deferred keys of a table together, deletes first; after those of the batch, because what they waited for may be among them.
   * Who has waited and is refused now is quarantined; who changed again meanwhile waits again. Returns how many do.
   */
  async #heal(
    transaction: SyncTransaction,
    waiting: readonly QuarantineRow[],
    changed: ChangedKeys,
  ): Promise<number> {
    const rows = await this.#deferredKeys();
    const name = (key: Key) => JSON.stringify(key);
    let deferred = 0;
    for (const driver of this.#context.compiled.drivers) {
      const of = (one: QuarantineRow) => one.sourceTable === driver.name;
      const due = new Set(waiting.filter(of).map(({ key }) => name(key)));
      for (const key of changed.get(driver) ?? []) due.delete(name(key));
      const keys = rows.filter(of).map(({ key }) => key);
      deferred += await this.#sync(transaction, driver, keys, {
        careful: true,
        defer: (key) => !due.has(name(key)),
        deleteFirst: true,
      });
    }
    return deferred;
  }

  async #sync(
    transaction: SyncTransaction,
    driver: Driver,
    keys: readonly Key[],
    options: KeySyncOptions,
  ): Promise<number> {
    const refusals = await syncKeys(this.#context, transaction, driver, keys, options);
    for (const refusal of refusals) {
      this.#log.warn(
        {
          mapping: refusal.mapping,
          key: refusal.key,
          reason: refusal.reason,
          sqlstate: refusal.sqlstate,
        },
        `mirror: a row of ${refusal.sourceTable} is ${refusal.state}`,
      );
    }
    return refusals.filter((refusal) => refusal.state === "deferred").length;
  }

  async #scopes(batch: FeedBatch, keys: ChangedKeys): Promise<Scope[]> {
    const { compiled, source } = this.#context;
    const scopes: Scope[] = [];
    const truncated = targetsTruncated(compiled, batch).flatMap((target) =>
      target.makers.map((maker) => maker.driver),
    );
    for (const driver of compiled.drivers) {
      const planVersion = this.#planVersions.get(driver.number) ?? 0;
      const changed = keys.get(driver) ?? [];
      if (truncated.includes(driver)) {
        scopes.push(this.#allStripes(driver));
      } else if (changed.length > 0) {
        scopes.push({
          driver,
          planVersion,
          stripes: await this.#stripes.of(compiled, driver, source, changed, planVersion),
        });
      }
    }
    return scopes;
  }

  #allStripes(driver: Driver): Scope {
    return {
      driver,
      planVersion: this.#planVersions.get(driver.number) ?? 0,
      stripes: ALL_STRIPES,
    };
  }

  /**
   * A fence counts as passed only while no key before it is deferred or quarantined; the highest one read is kept
   * too, and counts as soon as they are healed or accepted. Each epoch begins with none: a side that came back from a restore
   * gives numbers again that were passed before, and the fence that a flip waits for must not be one of them. Whoever waits reads
   * either here, so a commit that moves one waits for the disk. Any other is seen first and flushed afterwards: a crash in
   * between takes rows and position back together.
   * The row is looked for where the last pass put it: while an old snapshot is open, its key leads to the versions of every pass since.
   */
  async #positionSql(batch: FeedBatch): Promise<string> {
    const { compiled, epoch, target } = this.#context;
    const direction = compiled.direction;
    const lsn = batch.position === undefined ? "" : "lsn = $4, lsn_epoch = $1,";
    const name = await prepareForBatch(
      target,
      `with cf_before as (
         select ctid as place, epoch, case when epoch = $1 then fence else 0 end as fence, case when epoch = $1 then read else 0 end as read
         from crossfade.position where ctid = coalesce(
           (select ctid from crossfade.position where ctid = $3 and direction = '${direction}'),
           (select ctid from crossfade.position where direction = '${direction}')))
       update crossfade.position as p set epoch = $1, pass = p.pass + 1, ${lsn} read = greatest(cf_before.read, $2),
         fence = case when exists (select from crossfade.quarantine where direction = '${direction}' and state <> 'accepted')
                 then cf_before.fence else greatest(cf_before.read, $2) end
       from cf_before where p.ctid = cf_before.place returning p.fence::text, p.pass::text,
         case when cf_before.epoch <> p.epoch or cf_before.fence < p.fence or cf_before.read < p.read
              then set_config('synchronous_commit', 'on', true) end,
         p.ctid::text`,
      ["int", "bigint", "tid", ...(batch.position === undefined ? [] : ["pg_lsn"])],
    );
    const values = [epoch, batch.fence ?? 0n, `'${this.#place}'`];
    return `execute ${name}(${values.join(", ")}${batch.position === undefined ? "" : `, '${batch.position}'`})`;
  }
}

interface Saved {
  readonly fence: bigint;
  readonly pass: bigint;
  /** The commit has waited for the disk. */
  readonly durable: boolean;
  readonly newlyDeferred: boolean;
}

/** Target tables whose rows are made from a table that was truncated. */
function targetsTruncated(compiled: CompiledDirection, batch: FeedBatch): OwnedTarget[] {
  const truncated = new Set(
    batch.changes.filter((change) => change.kind === "truncate").map((change) => change.table),
  );
  if (truncated.size === 0) return [];
  return ownedTargets(compiled).filter((target) =>
    target.makers.some((maker) => truncated.has(maker.driver.number)),
  );
}

function countKeys(keys: ChangedKeys): number {
  let count = 0;
  for (const list of keys.values()) count += list.length;
  return count;
}
