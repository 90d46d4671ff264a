import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { consoleFiles } from "../../switchover/console-files.ts";
import { REJECTED, TOKENS, consoleWorld, idleConsoleWorld } from "../support/console-world.ts";
import { withClient } from "../support/databases.ts";
import { htmlFacts, markdownFacts, type Reported, reportOf } from "../support/report-facts.ts";

const CHROMIUM = "/usr/bin/chromium";
const installed = existsSync(CHROMIUM);
const OUTPUT = resolve(import.meta.dirname, "../../test-output/console");
/** For people to look at. */
const PICTURES = process.env["CROSSFADE_PICTURES"] !== undefined;
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
  page.setDefaultTimeout(60_000);
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
  await expect.poll(() => page.locator(".notice.running").count(), { timeout: 60_000 }).toBe(0);
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

async function picture(page: Page, name: string): Promise<void> {
  if (PICTURES) await page.screenshot({ path: join(OUTPUT, `${name}.png`), fullPage: true });
}

/** It is as wide as the screen; with CROSSFADE_PICTURES kept as it looks: wide and narrow, light and dark. */
async function pictures(page: Page, name: string): Promise<void> {
  for (const [width, height] of [
    [1280, 900],
    [390, 844],
  ] as const) {
    await page.setViewportSize({ width, height });
    await page.evaluate("scrollTo(0, 0)");
    // Charts follow the width a frame later.
    await expect
      .poll(() => page.evaluate<number>("document.documentElement.scrollWidth - innerWidth"), {
        message: `${name} at ${width} px is as wide as the screen`,
      })
      .toBeLessThanOrEqual(0);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      await picture(page, `${name}-${width}-${colorScheme}`);
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

    test("a whole migration by clicks: off to write-new, back, and forward again to done", async ({
      annotate,
    }) => {
      const world = await consoleWorld();
      const { page, complaints } = await openPage(browser, world.url);
      const first = await firstPaint(page);
      await page.reload();
      await annotate(`first paint after ${first} ms, opened again ${await firstPaint(page)} ms`);
      await logIn(page, "not-a-token");
      await page.getByRole("alert").getByText("This token is not known here").waitFor();
      await expectAccessible(page);
      await logIn(page, TOKENS.approver);
      await phaseIs(page, "off");

      await advance(page, "dual-write");
      await click(page, "Pause mirror");
      await pill(page, "Mirror", "paused");
      await click(page, "Resume mirror");
      await pill(page, "Mirror", "running");
      await advance(page, "backfill");
      await click(page, "Tune…");
      await page.getByLabel("Value").fill("2");
      await click(page, "Apply");
      await done(page, "Tune workers: done");
      await advance(page, "verify");
      await page.getByText("the name is empty").waitFor();

      await breakOneItem(world.plan);
      await click(page, "Verify…");
      await click(page, "Compare now");
      await done(page, "Verify: dirty");
      await pill(page, "Verify", "dirty");
      await click(page, "Verify…");
      await page.getByLabel("Repair: sync the rows that differ").check();
      await click(page, "Compare now");
      await done(page, "Verify and repair: ");

      await advance(page, "shadow");
      // No fence passes while a key is quarantined: what differs cannot be told from a write under way.
      await expect
        .poll(() => fact(page, "Shadow reads", "Compared"), { timeout: 60_000 })
        .toBeGreaterThan(20);
      expect(await page.locator(".mismatch").count()).toBe(0);
      await click(page, `Retry test.items ${REJECTED}`);
      await done(page, `Retry of test.items ${REJECTED}: `);
      await click(page, `Accept loss… of test.items ${REJECTED}`);
      await page.getByLabel("Your name").fill("Ada");
      await page.getByLabel("Reason").fill("an empty test row");
      await click(page, "Accept the loss");
      await done(page, `Loss of test.items ${REJECTED}: done`);
      await card(page, "Quarantine").locator(".pill", { hasText: "accepted" }).waitFor();
      await page.getByText(`test.items ${REJECTED}: an empty test row by Ada`).waitFor();
      const mismatch = page.locator(".mismatch", { hasText: "GET /items/:id at $.name" });
      await mismatch.locator("summary").click();
      await mismatch.locator("pre", { hasText: /^"name \d+!"$/ }).waitFor();
      await mismatch.locator("pre", { hasText: /^"name \d+"$/ }).waitFor();
      await pictures(page, "shadow");
      await click(page, /^Advance/);
      await page.getByRole("dialog").getByText("dry run").waitFor();
      await expectAccessible(page);
      await picture(page, "advance");
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });

      await advance(page, "canary");
      await twoConfirmAtOnce(page, await openSecond(browser, world.url, TOKENS.operator));
      await click(page, "All");
      await page.getByRole("button", { name: "All", pressed: true }).waitFor();
      await advance(page, "read-new");

      await click(page, "Drill…");
      await click(page, "Start the drill");
      await done(page, "Drill: ");
      const receipt = page.locator(".timeline li", { hasText: /^.*drill.*: ok/ }).first();
      await receipt.locator("summary").click();
      await receipt.getByRole("rowheader", { name: "epoch afterwards" }).waitFor();

      await advance(page, "write-new", true);
      await expect.poll(() => page.locator(".authority .explained").textContent()).toContain("new");
      await click(page, "← Roll back to read-new");
      await phaseIs(page, "read-new");
      await idle(page);
      await pictures(page, "rolled-back");
      const half = await expectSameFacts(browser, world.plan, "report-rolled-back");
      expect(half.json.tables).toMatchObject([
        { table: "items", rows: 119, found: 119, rejected: { "the name is empty": 1 } },
      ]);
      expect(half.json.counts).toMatchObject([
        { side: "old", table: "items", rows: 120 },
        { side: "new", table: "items", rows: 119 },
      ]);
      expect(half.json.quarantine).toMatchObject([{ state: "accepted", key: [`${REJECTED}`] }]);
      await advance(page, "write-new", true);
      await click(page, "Approve…");
      await page.getByLabel("Your name").fill("Ada");
      await page.getByRole("button", { name: "Approve", exact: true }).click();
      await done(page, "Approval of done: done");
      await advance(page, "done", true);
      await pictures(page, "done");
      await expectAccessible(page);

      const { json, html } = await expectSameFacts(browser, world.plan, "report-done");
      expect(json.stays.map(({ phase }) => phase)).toEqual([
        "dual-write",
        "backfill",
        "verify",
        "shadow",
        "canary",
        "read-new",
        "write-new",
        "read-new",
        "write-new",
        "done",
      ]);
      expect(json.receipts.map(({ kind, ok }) => `${kind} ${ok}`)).toEqual([
        "drill true",
        "flip true",
        "rollback true",
        "flip true",
      ]);
      const intoCanary = json.passages.find(({ to }) => to.startsWith("canary"));
      expect(intoCanary?.gates).toContainEqual(
        expect.objectContaining({ name: "shadow", state: "pass", limit: expect.any(String) }),
      );
      expect(html).not.toContain(TOKENS.approver);
      // What is removed with the end was written down before.
      expect(json.quarantine).toMatchObject([
        { direction: "forward", state: "accepted", key: [`${REJECTED}`] },
      ]);
      expect(json.verdict.sentence).toContain("but 1 key whose loss was accepted");
      expect(json.series.reads_new.at(-1)).toBe(1);

      expect(complaints).toEqual([]);
      expect(world.writes()).toBeGreaterThan(20);
      expect(world.failedWrites()).toBe(0);
      const items = await withClient(world.plan.new.database, (client) =>
        client.query("select count(*)::int as n from items"),
      );
      expect(items.rows).toEqual([{ n: 119 }]);
    }, 400_000);

    test("who may not act sees no actions; no way back is said and confirmed; a cut stream comes back", async () => {
      const world = await idleConsoleWorld({ reverse: undefined });
      const viewer = await openSecond(browser, world.url, TOKENS.viewer);
      await viewer.getByText("The role viewer looks; operators act.").waitFor();
      const actions = viewer.getByRole("region", { name: "Actions" });
      expect(await actions.getByRole("button").count()).toBe(0);
      const operator = await openSecond(browser, world.url, TOKENS.operator);
      await operator.getByRole("button", { name: /^Advance/ }).waitFor();
      expect(await operator.getByRole("button", { name: "Approve…" }).count()).toBe(0);

      const { page, complaints } = await openPage(browser, world.url);
      await logIn(page, TOKENS.approver);
      await phaseIs(page, "off");
      const nothingToGoBack = page.locator(".tip", { hasText: "Nothing has begun" });
      await page.getByRole("button", { name: "← Roll back" }).hover();
      await nothingToGoBack.waitFor();
      await page.mouse.move(0, 0);
      await nothingToGoBack.waitFor({ state: "detached" });
      await page.getByRole("button", { name: "← Roll back" }).focus();
      await nothingToGoBack.waitFor();
      await page.keyboard.press("Escape");
      await nothingToGoBack.waitFor({ state: "detached" });

      await click(page, /^Advance/);
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel("Up to").selectOption("write-new");
      const act = dialog.locator("button[type=submit]");
      await dialog.getByRole("textbox", { name: "Type write-new to confirm" }).fill("write-new");
      expect(await act.isDisabled()).toBe(true);
      await dialog.getByLabel("I know that there is no way back").check();
      expect(await act.isDisabled()).toBe(false);
      await page.keyboard.press("Escape");
      expect(complaints).toEqual([]);

      await world.stopController();
      await page.locator(".connection", { hasText: "not live" }).waitFor();
      await pictures(page, "cut-off");
      await world.startController();
      await page.locator(".connection", { hasText: /^● live$/ }).waitFor();
    });
  },
);

/** The same facts in every format; the page asks for nothing, and a browser shows all of it. */
async function expectSameFacts(browser: Browser, plan: Plan, name: string): Promise<Reported> {
  const report = await reportOf(plan);
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  const asked: string[] = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => asked.push(message.text()));
  await page.setContent(report.html);
  const facts = await htmlFacts(page);
  expect(facts).toEqual(markdownFacts(report.md));
  const { stays, tables, counts, receipts, passages, quarantine, series, timeline } = report.json;
  expect(
    Object.fromEntries(Object.entries(facts).map(([title, rows]) => [title, rows.length])),
  ).toMatchObject({
    Phases: stays.length,
    "Over time": series.at.length,
    Rows: counts.length,
    "Comparison of each table": tables.length,
    "Gates at each step": passages.flatMap(({ gates }) => gates).length,
    ...(receipts.length === 0 ? {} : { "Receipts of flips and drills": receipts.length }),
    ...(quarantine.length === 0 ? {} : { Quarantine: quarantine.length }),
    Timeline: timeline.length,
  });
  const shown = JSON.stringify(facts);
  for (const { at } of [...timeline, ...receipts, ...passages]) expect(shown).toContain(at);
  for (const { gates } of passages)
    for (const { value, why } of gates) {
      expect(shown).toContain(String(value ?? ""));
      expect(shown).toContain(JSON.stringify(why).slice(1, -1));
    }
  await expectCharts(page, report.json);
  expect(asked).toEqual([]);
  await picture(page, name);
  await page.setViewportSize({ width: 390, height: 844 });
  expect(
    await page.evaluate("document.documentElement.scrollWidth - innerWidth"),
  ).toBeLessThanOrEqual(0);
  await context.close();
  return report;
}

/** Every chart draws as many moments as were recorded of it, and says in words what it shows. */
async function expectCharts(page: Page, { series }: Reported["json"]): Promise<void> {
  const drawn = await page.evaluate<
    [string, number][]
  >(`[...document.querySelectorAll("figure")].map((figure) => [
    figure.querySelector("svg").getAttribute("aria-label"),
    [...figure.querySelectorAll(".line")].reduce((sum, line) => sum + (line.getAttribute("d").match(/[ML]/g) ?? []).length, 0)])`);
  const known = (...columns: (readonly (number | null)[])[]) =>
    columns.flat().filter((value) => value !== null).length;
  const points = new Map(drawn.map(([label, count]) => [label.split(" (")[0], count]));
  for (const [title, count] of [
    ["Reads answered by new", known(series.reads_new)],
    ["Requests", known(series.old.requests_per_s, series.new.requests_per_s)],
    ["Latency, 99th percentile", known(series.old.p99_ms, series.new.p99_ms)],
    ["Errors", known(series.old.errors_per_s, series.new.errors_per_s)],
    ["Lag of the mirror", known(series.lag_ms)],
  ] as const) {
    // One every two seconds.
    expect(count, title).toBeGreaterThan(1);
    // A point alone is drawn twice.
    expect(points.get(title), title).toBeGreaterThanOrEqual(count);
  }
}

async function click(page: Page, name: string | RegExp): Promise<void> {
  await page.getByRole("button", { name, exact: typeof name === "string" }).click();
}

/** The notice that a command went well. */
async function done(page: Page, text: string): Promise<void> {
  await page.locator(".notice.well", { hasText: `✓ ${text}` }).waitFor();
}

async function firstPaint(page: Page): Promise<number> {
  const paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null";
  // Not `waitForFunction`: it looks again from within the page, whose policy forbids that.
  await expect.poll(() => page.evaluate<number | null>(paint)).toBeGreaterThan(0);
  return Math.round(await page.evaluate<number>(paint));
}

const card = (page: Page, title: string) => page.getByRole("region", { name: title, exact: true });

/** The state in the corner of a card. */
async function pill(page: Page, title: string, text: string): Promise<void> {
  await card(page, title).locator("header .pill", { hasText: text }).waitFor();
}

/** The number of a fact of a card. */
async function fact(page: Page, title: string, name: string): Promise<number> {
  const value = card(page, title).locator(".fact", { hasText: name }).locator("dd").first();
  return Number((await value.innerText()).replaceAll(/\D/g, ""));
}

/** Another person, in a browser of their own. */
async function openSecond(browser: Browser, url: string, token: string): Promise<Page> {
  const { page } = await openPage(browser, url);
  await logIn(page, token);
  return page;
}

/** Both have the same step of canary before their eyes: it is taken once, and who comes second is told. */
async function twoConfirmAtOnce(first: Page, second: Page): Promise<void> {
  const act = "dialog button[type=submit]";
  for (const page of [first, second]) {
    await click(page, /^Advance/);
    await page.locator(act, { hasText: "Advance to canary step 2" }).waitFor();
  }
  await first.locator(act).click();
  await done(first, "Advance to canary step 2: ");
  await second.locator(act).click();
  await second.getByRole("alert").getByText("this was decided in canary step 1").waitFor();
  await first.getByText(/^step 2 ·/).waitFor();
}

/** As a mirror with a bug would: the guard lets nobody else. */
async function breakOneItem(plan: Plan): Promise<void> {
  await withClient(plan.new.database, (client) =>
    client.query(
      "begin; set local crossfade.mirror = 'forward:1'; update items set title = 'broken' where id = 3; commit",
    ),
  );
}
