import { execFile } from "node:child_process";
import {
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
const NODE_24 = dirname(resolve(ROOT, "node_modules/node/bin/node"));
const run = promisify(execFile);

interface Locked {
  readonly version: string;
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
}

/** What this checkout is locked to: the files that were fetched for it are installed, and no registry is asked what there is. */
function lock(folder: string, crossfade: string): void {
  const { version, packages } = JSON.parse(
    readFileSync(join(ROOT, "package-lock.json"), "utf8"),
  ) as Locked;
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
    dependencies: object;
  };
  const whole = { name: "empty", version: "1.0.0", dependencies: { crossfade } };
  const needed = Object.entries(packages).filter(([path, { dev }]) => path !== "" && !dev);
  const write = (name: string, content: object) =>
    writeFileSync(join(folder, name), JSON.stringify(content));
  write("package.json", whole);
  write("package-lock.json", {
    ...whole,
    lockfileVersion: 3,
    packages: {
      "": whole,
      "node_modules/crossfade": {
        version,
        resolved: crossfade,
        dependencies,
        bin: { crossfade: "bin/crossfade" },
      },
      ...Object.fromEntries(needed),
    },
  });
}

describe("the package, installed into an empty folder", () => {
  let folder: string;
  const env = { ...process.env, PATH: `${NODE_24}:${process.env["PATH"]}` };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "crossfade-package-"));
    await run("npm", ["pack", "--pack-destination", folder], { cwd: ROOT, env });
    const tarball = readdirSync(folder).find((file) => file.endsWith(".tgz"));
    lock(folder, `file:${tarball}`);
    const quietly = ["--prefer-offline", "--no-audit", "--no-fund"];
    await run("npm", ["ci", ...quietly], { cwd: folder, env });
  });

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("runs", async () => {
    const { stdout } = await run(join(folder, "node_modules/.bin/crossfade"), ["--help"], {
      cwd: folder,
      env,
    });
    expect(stdout).toContain("Usage: crossfade");
    for (const command of ["up", "advance", "rollback", "status"])
      expect(stdout).toContain(`  ${command} `);
  });

  test("knows its version, and has every module it needs", async () => {
    const crossfade = join(folder, "node_modules/.bin/crossfade");
    const { stdout } = await run(crossfade, ["--version"], { cwd: folder, env });
    expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+/);
    await expect(run(crossfade, ["status", "--json"], { cwd: folder, env })).rejects.toMatchObject({
      code: 2,
      stdout: expect.stringContaining('"PLAN_INVALID"'),
    });
  });

  test("has the console built, and needs nothing to build it", async () => {
    const module = join(folder, "node_modules/crossfade/dist/switchover/console-files.js");
    const script = `import { consoleFiles } from ${JSON.stringify(module)};
      const files = await consoleFiles();
      console.log(JSON.stringify([...files].map(([path, { type }]) => [path, type])));`;
    const { stdout } = await run("node", ["--input-type=module", "--eval", script], {
      cwd: folder,
      env,
    });
    const files = new Map(JSON.parse(stdout) as [string, string][]);
    expect(files.get("/")).toContain("text/html");
    expect([...files.keys()].some((path) => /^\/console\/.+\.js$/.test(path))).toBe(true);
    const installed = readdirSync(join(folder, "node_modules"));
    expect(installed.filter((name) => ["vite", "preact", "uplot"].includes(name))).toEqual([]);
  });

  test("has the types of a plan's transform", async () => {
    const good = `import type { Rejection, Transform } from "crossfade";
      const no: Rejection = { reject: "no" };
      export const transform: Transform<"id", "a"> = ({ id }) => (id === null ? no : [{ a: id }]);`;
    writeFileSync(join(folder, "good.ts"), good);
    writeFileSync(join(folder, "bad.ts"), good.replace("a: id", "a: 1"));
    const types = (file: string) =>
      run(
        "node",
        [
          join(ROOT, "node_modules/typescript/bin/tsc"),
          "--noEmit",
          "--strict",
          "--module",
          "nodenext",
          "--types",
          "",
          file,
        ],
        { cwd: folder, env },
      );
    await types("good.ts");
    await expect(types("bad.ts")).rejects.toMatchObject({
      stdout: expect.stringContaining("Type 'number' is not assignable"),
    });
  });

  test("ships no sources and no tests", () => {
    const shipped = readdirSync(join(folder, "node_modules/crossfade"), {
      recursive: true,
      encoding: "utf8",
    });
    expect(
      shipped.filter((file) => !file.startsWith("node_modules") && /\.ts$|(^|\/)test\//.test(file)),
    ).toEqual(["dist/transform-types.d.ts"]);
  });
});

describe("bin/crossfade of a checkout", () => {
  /** A PATH with the few tools the script needs, and only the Node that `node` is, if any. */
  function pathWith(node: string | undefined): string {
    const bin = mkdtempSync(join(tmpdir(), "crossfade-path-"));
    afterAll(() => rmSync(bin, { recursive: true, force: true }));
    for (const tool of ["sh", "dirname", "readlink"])
      symlinkSync(`/usr/bin/${tool}`, join(bin, tool));
    if (node !== undefined) symlinkSync(node, join(bin, "node"));
    return bin;
  }

  test("uses the pinned Node where PATH has none", async () => {
    const { stdout } = await run(join(ROOT, "bin/crossfade"), ["--version"], {
      env: { PATH: pathWith(undefined) },
    });
    expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+/);
  });

  test("uses the pinned Node where the one on PATH is too old", async () => {
    const old = join(pathWith(undefined), "old-node");
    writeFileSync(old, "#!/bin/sh\necho v22.23.1\n", { mode: 0o755 });
    const { stdout } = await run(join(ROOT, "bin/crossfade"), ["--version"], {
      env: { PATH: pathWith(old) },
    });
    expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+/);
  });

  test("works through a symlink, from any folder", async () => {
    const folder = pathWith(undefined);
    symlinkSync(join(ROOT, "bin/crossfade"), join(folder, "crossfade"));
    const { stdout } = await run(join(folder, "crossfade"), ["--version"], {
      env: { PATH: folder },
      cwd: tmpdir(),
    });
    expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+/);
  });

  test("hands the exit code through", async () => {
    await expect(
      run(join(ROOT, "bin/crossfade"), ["nonsense"], { env: { PATH: pathWith(undefined) } }),
    ).rejects.toMatchObject({ code: 2 });
  });
});
