import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { consoleFiles } from "../../switchover/console-files.ts";
import { TOKENS, consoleWorld } from "../support/console-world.ts";

const CHROMIUM = "/usr/bin/chromium";
const installed = existsSync(CHROMIUM);
const OUTPUT = resolve(import.meta.dirname, "../../test-output/console");
const MAX_GZIPPED = 150 * 1024;

test("the whole console is at most 150 KB gzipped, and its page has nothing inline", async () => {
  const files = await consoleFiles();
  const sizes = [...files.values()].map((file) => file.gzipped.length);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(MAX_GZIPPED);
  const page = files.get("/");
  expect(gunzipSync(page?.gzipped ?? "").toString()).toBe(page?.body.toString());
  expect(page?.body.toString()).not.toMatch(/<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=/);
});

/** The page in a real browser; whatever it complains about or asks of another origin ends up in `complaints`. */
async function openPage(
  browser: Browser,
  url: string,
): Promise<{ page: Page; complaints: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  onTestFinished(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  mkdirSync(OUTPUT, { recursive: true });
  onTestFinished(async ({ task }) => {
    if (task.result?.state === "fail")
      await page.screenshot({ path: join(OUTPUT, "failed.png"), fullPage: true });
  });
  const complaints: string[] = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) complaints.push(request.url());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // The browser itself notes every answer that is not 200: the refused login.
    if (message.type() === "error" && !message.text().includes("status of 401"))
      complaints.push(message.text());
  });
  await page.goto(url);
  return { page, complaints };
}

async function logIn(page: Page, token: string): Promise<void> {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
}

async function phaseIs(page: Page, phase: string): Promise<void> {
  await page.locator("[aria-current=step] .name", { hasText: new RegExp(`^${phase}$`) }).waitFor();
}

/** The way a person goes: the button, the dry run, the name if it is asked for, the button of the dialog. */
async function advance(page: Page, to: string, typed = false): Promise<void> {
  await page.getByRole("button", { name: /^Advance/ }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("A dry run, nothing has changed yet.").waitFor();
  const act = dialog.locator("button[type=submit]");
  const confirm = dialog.getByRole("textbox", { name: `Type ${to} to confirm` });
  expect(await confirm.count()).toBe(typed ? 1 : 0);
  if (typed) {
    expect(await act.isDisabled()).toBe(true);
    await confirm.fill(to);
  }
  await act.click();
  await phaseIs(page, to);
  await idle(page);
}

/** No command runs any more. */
async function idle(page: Page): Promise<void> {
  await expect.poll(() => page.locator(".notice.running").count(), { timeout: 30_000 }).toBe(0);
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");

/** What axe finds, in light and dark. */
async function expectAccessible(page: Page): Promise<void> {
  await page.evaluate(axeSource);
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    const found = await page.evaluate(async () => {
      const { axe } = globalThis as unknown as {
        axe: { run: () => Promise<{ violations: AxeViolation[] }> };
      };
      const { violations } = await axe.run();
      return violations.map(
        ({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`,
      );
    });
    expect(found, colorScheme).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

interface AxeViolation {
  readonly id: string;
  readonly nodes: readonly { readonly html: string }[];
}

/** Kept for people to look at: wide and narrow, light and dark. */
async function pictures(page: Page, name: string): Promise<void> {
  for (const [width, height] of [
    [1280, 900],
    [390, 844],
  ] as const) {
    await page.setViewportSize({ width, height });
    expect(
      await page.evaluate("document.documentElement.scrollWidth - innerWidth"),
      `${name} at ${width} px is as wide as the screen`,
    ).toBeLessThanOrEqual(0);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({
        path: join(OUTPUT, `${name}-${width}-${colorScheme}.png`),
        fullPage: true,
      });
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
}

describe.skipIf(!installed)(
  installed
    ? "in Chromium"
    : `NOT RUN in Chromium: ${CHROMIUM} is not installed (apt install chromium)`,
  () => {
    let browser: Browser;
    beforeAll(async () => {
      browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
    });
    afterAll(() => browser?.close());

    test("by clicks from off to read-new", async () => {
      const world = await consoleWorld();
      const { page, complaints } = await openPage(browser, world.url);
      await logIn(page, "not-a-token");
      await page.getByRole("alert").getByText("This token is not known here").waitFor();
      await expectAccessible(page);
      await logIn(page, TOKENS.approver);
      await phaseIs(page, "off");
      const noWayBack = page.locator(".tip", { hasText: "Nothing has begun" });
      await page.getByRole("button", { name: "← Roll back" }).hover();
      await noWayBack.waitFor();
      await page.mouse.move(0, 0);
      await noWayBack.waitFor({ state: "detached" });
      await page.getByRole("button", { name: "← Roll back" }).focus();
      await noWayBack.waitFor();
      await page.keyboard.press("Escape");
      await noWayBack.waitFor({ state: "detached" });

      await advance(page, "dual-write");
      await advance(page, "backfill");
      await advance(page, "verify");
      await advance(page, "shadow");
      await page.getByText("the name is empty").waitFor();
      await page.getByRole("button", { name: /^Advance/ }).click();
      await page.getByRole("dialog").getByText("dry run").waitFor();
      await expectAccessible(page);
      await page.screenshot({ path: join(OUTPUT, "advance.png") });
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      await expectAccessible(page);
      await pictures(page, "shadow");

      await advance(page, "canary");
      await advance(page, "read-new");

      expect(complaints).toEqual([]);
      expect(world.writes()).toBeGreaterThan(20);
      expect(world.failedWrites()).toBe(0);
    });
  },
);
