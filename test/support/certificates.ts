import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate } from "selfsigned";

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** An authority, and certificates it gives out. */
export interface Authority extends Certificate {
  issue(commonName: string): Promise<Certificate>;
}

export async function createAuthority(name = "Test authority"): Promise<Authority> {
  const made = await generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, digitalSignature: true },
    ],
  });
  return {
    cert: made.cert,
    key: made.private,
    issue: async (commonName) => {
      const { cert, private: key } = await generate([{ name: "commonName", value: commonName }], {
        keyType: "ec",
        algorithm: "sha256",
        ca: { cert: made.cert, key: made.private },
        extensions: [
          { name: "basicConstraints", cA: false },
          {
            name: "subjectAltName",
            altNames: [
              { type: 2, value: commonName },
              { type: 7, ip: "127.0.0.1" },
            ],
          },
        ],
      });
      return { cert, key };
    },
  };
}

/** Writes PEM files to a folder of their own; gives their paths by the same names. */
export async function writePem<Name extends string>(
  files: Record<Name, string>,
): Promise<Record<Name, string>> {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-tls-"));
  const paths = {} as Record<Name, string>;
  for (const [name, content] of Object.entries(files) as [Name, string][]) {
    paths[name] = join(folder, `${name}.pem`);
    await writeFile(paths[name], content);
  }
  return paths;
}
