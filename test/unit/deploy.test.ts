import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { loadPlan } from "../../config/load.ts";
import { ROLES } from "../../cli/role.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const DEPLOY = join(ROOT, "deploy");
const text = (file: string) => readFileSync(join(DEPLOY, file), "utf8");

describe("the image", () => {
  const instructions = text("Dockerfile")
    .replaceAll(/\\\n/g, " ")
    .split("\n")
    .filter((line) => /^[A-Z]+ /.test(line));
  const last = (word: string) =>
    instructions.findLast((line) => line.startsWith(`${word} `))?.slice(word.length + 1);

  test("copies what is there, runs as nobody special, and starts a command that exists", () => {
    for (const line of instructions.filter((one) => /^COPY (?!--from)/.test(one)))
      for (const source of line.split(" ").slice(1, -1))
        expect(existsSync(join(ROOT, source)), line).toBe(true);
    expect(last("USER")).toBe("node");
    expect(last("STOPSIGNAL")).toBe("SIGTERM");
    expect(last("HEALTHCHECK")).toContain("/healthz");
    const entry = JSON.parse(last("ENTRYPOINT") ?? "") as string[];
    const command = JSON.parse(last("CMD") ?? "") as string[];
    expect(entry).toEqual(["crossfade"]);
    const { stderr, status } = spawnSync(join(ROOT, "bin/crossfade"), command, {
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([2, expect.stringContaining("/etc/crossfade/crossfade.yaml")]);
  });

  test("its Node is one the package runs on", () => {
    const major = Number(/^FROM node:(\d+)/m.exec(text("Dockerfile"))?.[1]);
    const engines = (
      JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { engines: { node: string } }
    ).engines.node;
    expect(`>=${major}`).toBe(engines);
  });
});

describe("compose.yaml", () => {
  const service = z.looseObject({
    image: z.string().optional(),
    build: z
      .looseObject({ context: z.string(), dockerfile: z.string(), target: z.string().optional() })
      .optional(),
    volumes: z.array(z.string()).prefault([]),
    environment: z.record(z.string(), z.string()).prefault({}),
    depends_on: z.record(z.string(), z.unknown()).prefault({}),
    configs: z.array(z.object({ source: z.string(), target: z.string() })).prefault([]),
    network_mode: z.string().optional(),
    ports: z.array(z.string()).prefault([]),
  });
  const compose = z
    .looseObject({
      services: z.record(z.string(), service),
      volumes: z.record(z.string(), z.unknown()),
      configs: z.record(z.string(), z.unknown()),
    })
    .parse(parse(text("compose.yaml"), { merge: true }));

  test("names only files, volumes, configs, stages and services that are there", () => {
    const stages = [...text("Dockerfile").matchAll(/^FROM \S+ AS (\w+)/gm)].map(([, name]) => name);
    for (const [name, one] of Object.entries(compose.services)) {
      expect(one.image !== undefined || one.build !== undefined, name).toBe(true);
      if (one.build !== undefined) {
        expect(existsSync(join(DEPLOY, one.build.context, one.build.dockerfile)), name).toBe(true);
        if (one.build.target !== undefined) expect(stages).toContain(one.build.target);
      }
      for (const volume of one.volumes) {
        const source = volume.split(":")[0] ?? "";
        if (source.startsWith("."))
          expect(existsSync(join(DEPLOY, source)), `${name}: ${source}`).toBe(true);
        else expect(compose.volumes).toHaveProperty(source);
      }
      for (const { source } of one.configs) expect(compose.configs).toHaveProperty(source);
      const others = [...Object.keys(one.depends_on), one.network_mode?.split(":")[1]].filter(
        (other) => other !== undefined,
      );
      for (const other of others) expect(compose.services).toHaveProperty(other);
      for (const port of one.ports) expect(port, name).toMatch(/^127\.0\.0\.1:/);
    }
  });

  test("runs no server that the image's pg_dump is too old for", () => {
    const client = Number(/postgresql-client-(\d+)/.exec(text("Dockerfile"))?.[1]);
    const servers = Object.values(compose.services).flatMap(({ image }) =>
      image?.startsWith("postgres:") === true ? [Number(image.split(":")[1])] : [],
    );
    expect(servers).toHaveLength(2);
    for (const server of servers) expect(client).toBeGreaterThanOrEqual(server);
  });

  test("gives the example's plan what it reads", () => {
    const plan = loadPlan(
      join(ROOT, "examples/colonycraft/crossfade.yaml"),
      compose.services["crossfade"]?.environment,
    );
    expect(plan.proxy).toMatchObject({
      listen: { host: "0.0.0.0", port: 8080 },
      state: "/var/lib/crossfade",
    });
    for (const [side, app] of [
      ["old", "old-app"],
      ["new", "new-app"],
    ] as const) {
      const environment = compose.services[app]?.environment;
      expect(plan[side].database).toBe(environment?.["DATABASE_URL"]);
      expect(plan[side].app).toBe(`http://127.0.0.1:${environment?.["PORT"]}`);
    }
  });
});

describe("kubernetes", () => {
  const securityContext = z.looseObject({
    readOnlyRootFilesystem: z.literal(true),
    allowPrivilegeEscalation: z.literal(false),
    capabilities: z.object({ drop: z.tuple([z.literal("ALL")]) }),
  });
  const container = z.looseObject({
    name: z.string(),
    image: z.string(),
    args: z.array(z.string()),
    securityContext,
    resources: z.object({
      requests: z.object({ cpu: z.string(), memory: z.string() }),
      limits: z.object({ memory: z.string() }),
    }),
    volumeMounts: z.array(z.looseObject({ name: z.string() })),
    ports: z.array(z.looseObject({ name: z.string() })).prefault([]),
  });
  const volumes = z.array(z.looseObject({ name: z.string() }));
  const deployment = z.looseObject({
    apiVersion: z.literal("apps/v1"),
    kind: z.literal("Deployment"),
    spec: z.looseObject({
      selector: z.object({ matchLabels: z.record(z.string(), z.string()) }),
      template: z.looseObject({
        metadata: z.object({ labels: z.record(z.string(), z.string()) }),
        spec: z.looseObject({
          securityContext: z.looseObject({ runAsNonRoot: z.literal(true) }),
          containers: z.array(container).min(1),
          volumes,
        }),
      }),
    }),
  });
  const documents = parseAllDocuments(text("kubernetes/crossfade.yaml")).map(
    (document) => document.toJS() as { kind: string; metadata: { name: string } },
  );

  test("every deployment runs a role, locked down, with the volumes it mounts", () => {
    const deployments = documents
      .filter(({ kind }) => kind === "Deployment")
      .map((one) => deployment.parse(one));
    expect(deployments.length).toBe(3);
    for (const { spec } of deployments) {
      expect(spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels);
      for (const one of spec.template.spec.containers) {
        expect(ROLES).toContain(one.args[0]);
        for (const { name } of one.volumeMounts)
          expect(spec.template.spec.volumes.map((volume) => volume.name)).toContain(name);
      }
    }
    const kinds = documents.map(({ kind }) => kind);
    for (const kind of ["NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"])
      expect(kinds).toContain(kind);
  });

  test("the sidecar is a native one: it starts before the app and ends after it", () => {
    const patch = parse(text("kubernetes/sidecar-patch.yaml")) as {
      spec: { template: { spec: { initContainers: unknown[]; volumes: unknown } } };
    };
    const { initContainers, volumes: mounted } = patch.spec.template.spec;
    const sidecar = container
      .extend({ restartPolicy: z.literal("Always") })
      .parse(initContainers[0]);
    expect(sidecar.args[0]).toBe("proxy");
    const names = volumes.parse(mounted).map(({ name }) => name);
    for (const { name } of sidecar.volumeMounts) expect(names).toContain(name);
  });
});

describe("systemd", () => {
  const units = globSync("*.service", { cwd: join(DEPLOY, "systemd") });
  const analyze = spawnSync("systemd-analyze", ["--version"]).status === 0;

  test("one unit for each role", () => {
    expect(units.toSorted()).toEqual(ROLES.map((role) => `crossfade-${role}@.service`).toSorted());
    for (const unit of units)
      expect(text(`systemd/${unit}`)).toMatch(
        new RegExp(`^ExecStart=/usr/bin/crossfade ${/-(\w+)@/.exec(unit)?.[1]} --plan`, "m"),
      );
  });

  test.skipIf(!analyze)(
    `systemd accepts them${analyze ? "" : " (systemd-analyze is not installed here)"}`,
    () => {
      const folder = mkdtempSync(join(tmpdir(), "crossfade-units-"));
      try {
        for (const unit of units) {
          const file = join(folder, basename(unit).replace("@.", "@shop."));
          // The command is not installed here.
          writeFileSync(
            file,
            text(`systemd/${unit}`).replaceAll("/usr/bin/crossfade", "/bin/true"),
          );
          const said = spawnSync("systemd-analyze", ["verify", "--man=no", file], {
            encoding: "utf8",
          });
          expect([
            said.status,
            said.stderr.split("\n").filter((line) => line.includes(folder)),
          ]).toEqual([0, []]);
        }
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  );
});
