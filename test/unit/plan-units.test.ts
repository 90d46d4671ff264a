import { describe, expect, test } from "vitest";
import {
  parseDelta,
  parseDuration,
  parseFactor,
  parseListen,
  parseShare,
} from "../../config/units.ts";

describe("durations", () => {
  test.each([
    ["500ms", 500],
    ["5s", 5_000],
    ["15m", 900_000],
    ["2h", 7_200_000],
    ["1d", 86_400_000],
    ["1.5s", 1_500],
    [" 5s ", 5_000],
    ["0s", 0],
  ])("%s is %d ms", (text, ms) => expect(parseDuration(text)).toBe(ms));

  test.each([
    [500, "found 500, expected a time with its unit, such as 500ms, 5s or 15m"],
    ["500", 'found "500", expected a time with its unit'],
    ["5 s", 'found "5 s", expected a time such as 500ms'],
    ["-5s", "expected a time such as"],
    ["5sec", "expected a time such as"],
    ["", 'found "", expected a time'],
    ["1e3ms", "expected a time"],
    ["99999999999999999d", "expected a shorter time"],
  ])("%s is refused", (value, message) => expect(() => parseDuration(value)).toThrow(message));
});

describe("shares", () => {
  test.each([
    ["10%", 0.1],
    ["0.1%", 0.001],
    [0.1, 0.1],
    ["0.25", 0.25],
    [0, 0],
    [1, 1],
    ["100%", 1],
  ])("%s is %d", (value, share) => expect(parseShare(value)).toBeCloseTo(share, 12));

  test.each([10, "110%", "-1%", "ten", "", "0x1", "1e-3"])("%s is refused", (value) =>
    expect(() => parseShare(value)).toThrow("expected a share such as 10% or 0.1"),
  );
});

describe("factors and differences", () => {
  test("hold", () => {
    expect(parseFactor("1.2x")).toBe(1.2);
    expect(parseDelta("+0.1%")).toBeCloseTo(0.001, 12);
  });
  test.each(["1.2", 1.2, "x", "0x", "-1x"])("%s is no factor", (value) =>
    expect(() => parseFactor(value)).toThrow("expected a factor such as 1.2x"),
  );
  test.each(["0.1%", "+0.1", "-0.1%", "+200%"])("%s is no difference", (value) =>
    expect(() => parseDelta(value)).toThrow("expected a difference such as +0.1%"),
  );
});

describe("listen addresses", () => {
  test.each([
    ["127.0.0.1:8080", "127.0.0.1", 8080],
    ["[::1]:8080", "::1", 8080],
    [":8080", "127.0.0.1", 8080],
    ["0.0.0.0:0", "0.0.0.0", 0],
    ["my-host.internal:65535", "my-host.internal", 65_535],
  ])("%s", (text, host, port) => expect(parseListen(text)).toEqual({ host, port }));

  test.each([
    8080,
    "8080",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:65536",
    "::1:8080",
    "http://127.0.0.1:8080",
  ])("%s is refused", (value) =>
    expect(() => parseListen(value)).toThrow(
      "expected an address to listen on such as 127.0.0.1:8080, [::1]:8080 or :8080 (loopback)",
    ),
  );
});
