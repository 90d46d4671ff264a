import { describe, expect, test } from "vitest";
import { describeDatabase, redact } from "../../config/describe.ts";

describe("describeDatabase", () => {
  test.each([
    ["postgres://app:secret@db.example:6432/shop", "db.example:6432/shop"],
    ["postgresql://app:secret@db.example/shop?sslmode=require", "db.example:5432/shop"],
    ["postgres://app:sec%40ret@[::1]:5433/my%20db", "[::1]:5433/my db"],
    ["postgres://app@/shop?host=/run/postgresql", "/run/postgresql:5432/shop"],
    ["postgres:///shop", "localhost:5432/shop"],
    ["postgres://app:secret@h", "h:5432/(default)"],
    ["postgres://app:se@cr/et@db.example/shop", "(unreadable address)"],
    ["postgres://app:se#cret@db.example/shop", "(unreadable address)"],
    ["postgres://app:se?cret@db.example/shop", "(unreadable address)"],
    ["secret", "(unreadable address)"],
  ])("%s", (url, description) => expect(describeDatabase(url)).toBe(description));
});

describe("redact", () => {
  test.each([
    ["at postgres://app:secret@h:5432/db now", "at postgres://app:***@h:5432/db now"],
    ["postgres://app:se@cr/et@h/db", "postgres://app:***@h/db"],
    [
      '"postgres://app:secret@h/db" and "postgresql://b:other@i/db"',
      '"postgres://app:***@h/db" and "postgresql://b:***@i/db"',
    ],
    ["redis://:secret@h:6379", "redis://:***@h:6379"],
    ["postgres://h/db?user=a&password=secret&x=1", "postgres://h/db?user=a&password=***&x=1"],
    ["host=h password=secret dbname=d", "host=h password=*** dbname=d"],
    ["http://127.0.0.1:4001/@me is no secret", "http://127.0.0.1:4001/@me is no secret"],
    ["https://u:secret@h/x", "https://u:***@h/x"],
  ])("%s", (text, masked) => expect(redact(text)).toBe(masked));
});
