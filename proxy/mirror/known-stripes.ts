import type pg from "pg";
import { stripeOfEach } from "../../store/postgres/chunks.ts";
import type { Key } from "../../store/postgres/key-scope.ts";
import type { CompiledDirection, Driver } from "../../store/postgres/mapping.ts";

/** Keys that are remembered per table. */
const MOST = 20_000;

/**
 * Stripes of keys that were asked for before: rows that change often need not be looked up on the source each time. What the
 * source said of a key holds as long as the version of the table's chunk plan.
 */
export class KnownStripes {
  readonly #known = new Map<
    number,
    { readonly version: number; readonly of: Map<string, number> }
  >();

  async of(
    compiled: CompiledDirection,
    driver: Driver,
    source: pg.ClientBase,
    keys: readonly Key[],
    version: number,
  ): Promise<number[]> {
    if (version === 0) return [0];
    let known = this.#known.get(driver.number);
    if (known === undefined || known.version !== version || known.of.size > MOST) {
      known = { version, of: new Map() };
      this.#known.set(driver.number, known);
    }
    const { of } = known;
    const named = keys.map((key) => [JSON.stringify(key), key] as const);
    const unknown = named.filter(([name]) => !of.has(name));
    if (unknown.length > 0) {
      const asked = unknown.map(([, key]) => key);
      const stripes = await stripeOfEach(compiled, driver, source, asked, version);
      for (const [i, [name]] of unknown.entries()) of.set(name, stripes[i] ?? 0);
    }
    return [...new Set(named.map(([name]) => of.get(name) ?? 0))];
  }
}
