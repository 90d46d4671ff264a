import { Writable } from "node:stream";
import { expect, test } from "vitest";
import { CrossfadeError, PlanError } from "../../config/errors.ts";
import { Output } from "../../cli/output.ts";
import { runProgram } from "../../cli/program.ts";

function capture(json: boolean) {
  const written = { stdout: "", stderr: "" };
  const stream = (name: keyof typeof written) =>
    new Writable({
      write(chunk: Buffer, _, done) {
        written[name] += chunk.toString();
        done();
      },
    });
  return {
    written,
    output: new Output(json, { stdout: stream("stdout"), stderr: stream("stderr") }),
  };
}

test("with --json, stdout is one document and nothing else, whatever happens", () => {
  const { written, output } = capture(true);
  output.note("a note");
  output.result({ json: { n: 2n ** 60n }, text: "text" });
  output.result({ json: "another", text: "" });
  expect(output.error(new CrossfadeError("REFUSED", "no", { hint: "try later" }))).toBe(3);
  expect(JSON.parse(written.stdout)).toEqual({ n: "1152921504606846976" });
  expect(written.stderr).toBe("crossfade: no\n  try later\n");
});

test("with --json, an error is the document", () => {
  const { written, output } = capture(true);
  expect(output.error(new PlanError("p.yaml", [{ path: "name", message: "missing" }]))).toBe(2);
  expect(JSON.parse(written.stdout)).toEqual({
    error: {
      code: "PLAN_INVALID",
      message: "p.yaml does not hold:\n  name: missing",
      issues: [{ path: "name", message: "missing" }],
    },
  });
});

test("an error that is not ours is FAILED, and shows no password", () => {
  const { written, output } = capture(true);
  expect(output.error(new Error("connect postgres://u:s3cret@h/db failed"))).toBe(1);
  expect(JSON.parse(written.stdout)).toEqual({
    error: { code: "FAILED", message: "connect postgres://u:***@h/db failed" },
  });
});

test("without --json, results go to stdout, notes and errors to stderr", () => {
  const { written, output } = capture(false);
  output.note("a note");
  output.result({ json: {}, text: "done" });
  output.error(new CrossfadeError("FAILED", "broken"));
  expect(written).toEqual({ stdout: "done\n", stderr: "a note\ncrossfade: broken\n" });
});

test("help is a result; a usage error exits 2 and says where help is", async () => {
  const help = capture(false);
  expect(await runProgram([], ["--help"], help.output)).toBe(0);
  expect(help.written.stdout).toContain("Usage: crossfade");
  const wrong = capture(true);
  expect(await runProgram([], ["frobnicate"], wrong.output)).toBe(2);
  expect(JSON.parse(wrong.written.stdout)).toMatchObject({
    error: { code: "USAGE", hint: expect.stringContaining("--help") },
  });
});
