import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { BaseSequencer } from "vitest/node";
import type { TestSpecification } from "vitest/node";

// Processes that tests start: compiled once, not once each.
process.env["NODE_COMPILE_CACHE"] ??= join(import.meta.dirname, "node_modules/.cache/compiled");

// What tests leave behind, also those that fail or are interrupted, goes with the run. Servers run as another user: they pass through.
const folder = mkdtempSync(join(tmpdir(), "crossfade-tests-"));
chmodSync(folder, 0o711);
process.env["TMPDIR"] = folder;
process.once("exit", () => rmSync(folder, { recursive: true, force: true }));

/** Begun last, one of these would leave the other worker idle for a minute. */
const LONGEST = [
  "chaos/convergence",
  "db/flip-kill",
  "db/flip-pause",
  "e2e/cli-up",
  "e2e/northwind",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`));
      return at === -1 ? LONGEST.length : at;
    };
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}

const globalSetup = ["test/support/global-postgres.ts"];

/** A condition that a test waits for: how soon it holds is the machine's affair, not what is tested. */
const poll = { timeout: 20_000 };
/** What hangs ends here; what is slow on a slow machine does not. */
const LIMIT_MS = 240_000;

export default defineConfig({
  test: {
    retry: 0,
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
          // They have nothing but themselves: what one has loaded serves the others.
          isolate: false,
          expect: { poll },
        },
      },
      {
        test: {
          name: "db",
          include: ["test/db/**/*.test.ts"],
          globalSetup,
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
          expect: { poll },
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts", "test/chaos/**/*.test.ts"],
          globalSetup,
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
          expect: { poll },
        },
      },
    ],
  },
});
