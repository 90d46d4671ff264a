import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

/**
 * Makes docs/img/console.png: the console in the midst of the demo, once it has drilled a flip. Needs a Chromium
 * (`CHROMIUM`, default /usr/bin/chromium): `node_modules/.bin/node scripts/console-picture.ts`
 */
const ROOT = resolve(import.meta.dirname, "..");
const PICTURE = join(ROOT, "docs/img/console.png");
const SIZE = { width: 1280, height: 1130 };
const MAX_BYTES = 300 * 1024;

interface StatusDocument {
  readonly phase: string;
  readonly flip: object | null;
}

const demo = spawn(process.execPath, [join(ROOT, "examples/demo.ts")], {
  stdio: ["ignore", "pipe", "inherit"],
});
let said = "";
demo.stdout.on("data", (part: Buffer) => (said += part.toString()));
try {
  const console = await until(async () => /console: (http:\S+)/.exec(said)?.[1]);
  await until(async () => {
    const answer = await fetch(`${console}/v1/status`).catch(() => undefined);
    const status = (await answer?.json()) as StatusDocument | undefined;
    return status?.phase === "read-new" && status.flip !== null ? true : undefined;
  });
  await take(console);
} finally {
  demo.kill("SIGINT");
  await once(demo, "exit");
}

async function take(url: string): Promise<void> {
  const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: SIZE, colorScheme: "light" });
    await page.goto(url);
    await page.locator(".connection", { hasText: "live" }).waitFor();
    await page.getByRole("button", { name: "All", exact: true }).click();
    await page.locator("canvas").first().waitFor();
    // The click has scrolled there.
    await page.evaluate("scrollTo(0, 0)");
    mkdirSync(dirname(PICTURE), { recursive: true });
    await page.screenshot({ path: PICTURE });
  } finally {
    await browser.close();
  }
  const { size } = statSync(PICTURE);
  if (size > MAX_BYTES)
    throw new Error(`${PICTURE} has ${size} bytes, which is a lot for a README`);
}

async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (demo.exitCode !== null) throw new Error(`the demo ended first:\n${said}`);
    await sleep(300);
  }
}
