import { expect, test } from "vitest";
import { createLog } from "../../cli/log.ts";
import { noteStanding } from "../../config/standing.ts";

async function capture(isTTY: boolean, colors = false) {
  let written = "";
  const write = (text: string) => void (written += text);
  const log = await createLog(
    { level: "info", plan: "shop", role: "mirror" },
    { isTTY, hasColors: () => colors, write },
  );
  return { log, lines: () => written.split("\n").filter((line) => line !== "") };
}

test("every line is one JSON document with plan, role, phase and epoch; secrets are masked", async () => {
  const { log, lines } = await capture(false);
  log.info({ rows: 3 }, "before anything is known");
  noteStanding({ phase: "canary", epoch: 3 });
  log.warn(
    { err: new Error("connect postgres://u:s3cret@h/db") },
    "failed: postgres://u:s3cret@h/db",
  );
  log.info({ epoch: 2 }, "a line that speaks of another epoch");
  log.child({ child: true }).info("of a child");
  const documents = lines().map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(documents).toMatchObject([
    { plan: "shop", role: "mirror", phase: null, epoch: null, rows: 3 },
    { plan: "shop", role: "mirror", phase: "canary", epoch: 3, level: 40 },
    { plan: "shop", role: "mirror", phase: "canary", epoch: 2 },
    { plan: "shop", role: "mirror", phase: "canary", epoch: 3, child: true },
  ]);
  expect(lines().join("\n")).not.toContain("s3cret");
});

test("on a terminal they are for people, coloured only where the terminal wants it", async () => {
  noteStanding({ phase: "verify", epoch: 1 });
  const plain = await capture(true);
  plain.log.info("copied");
  expect(plain.lines()).toEqual([
    expect.stringMatching(/^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: \[mirror · verify · epoch 1\] copied$/),
  ]);
  const coloured = await capture(true, true);
  coloured.log.info("copied");
  expect(coloured.lines().join("")).toContain("\u001b[");
});
