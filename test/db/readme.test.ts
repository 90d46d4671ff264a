import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { validatePlan } from "../../cli/validate.ts";
import { loadPlan } from "../../config/load.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

const README = readFileSync("README.md", "utf8");

test("the README's first plan holds against databases like those it speaks of", async () => {
  const [yaml] = [...README.matchAll(/```yaml\n(.*?)```/gs)].map((match) => match[1]);
  expect(yaml?.trim().split("\n").length).toBeLessThanOrEqual(15);
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(oldUrl, (client) =>
    client.query(
      "create table customers (id bigint primary key, name text not null, street text, city text)",
    ),
  );
  await withClient(newUrl, (client) =>
    client.query(`create table customers (id bigint primary key, name text not null);
      create table addresses (customer_id bigint primary key references customers, street text, city text)`),
  );
  const plan = loadPlan(writePlanFile(yaml), {
    OLD_DATABASE_URL: oldUrl,
    NEW_DATABASE_URL: newUrl,
  });
  const { directions, tables } = await validatePlan(plan);
  expect(directions.map(({ direction }) => direction)).toEqual(["forward", "reverse"]);
  expect(tables).toEqual({ old: ["customers"], new: ["customers", "addresses"] });
});
