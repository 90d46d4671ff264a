import { join } from "node:path";
import { defineConfig } from "vitest/config";

// Processes that tests start: compiled once, not once each.
process.env["NODE_COMPILE_CACHE"] ??= join(import.meta.dirname, "node_modules/.cache/compiled");

const globalSetup = ["test/support/global-postgres.ts"];

export default defineConfig({
  test: {
    retry: 0,
    maxWorkers: 2,
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 30_000 } },
      {
        test: {
          name: "db",
          include: ["test/db/**/*.test.ts"],
          globalSetup,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts", "test/chaos/**/*.test.ts"],
          globalSetup,
          testTimeout: 180_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
