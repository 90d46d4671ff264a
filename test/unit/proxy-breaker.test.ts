import { expect, test } from "vitest";
import { Breaker, isDead } from "../../proxy/breaker.ts";

const opened = (now = 0): Breaker => {
  const breaker = new Breaker({ failures: 3, restMs: 100 });
  for (let n = 0; n < 3; n++) breaker.failed(now);
  return breaker;
};

test("only failures in a row open it", () => {
  const breaker = new Breaker({ failures: 3, restMs: 100 });
  for (let n = 0; n < 10; n++) {
    breaker.failed(n);
    breaker.failed(n);
    breaker.answered();
  }
  expect([breaker.isOpen, breaker.opened, breaker.ask(0)]).toEqual([false, 0, "go"]);
  expect(opened().isOpen).toBe(true);
});

test("open: one probe per rest, also when a probe never ends", () => {
  const breaker = opened();
  expect(breaker.ask(99)).toBe("rest");
  expect([breaker.ask(100), breaker.ask(100), breaker.ask(199)]).toEqual(["probe", "rest", "rest"]);
  expect(breaker.ask(200)).toBe("probe");
});

test("a probe that fails begins another rest; one that is answered closes it", () => {
  const breaker = opened();
  expect(breaker.ask(100)).toBe("probe");
  breaker.failed(150);
  expect([breaker.ask(249), breaker.ask(250)]).toEqual(["rest", "probe"]);
  expect(breaker.opened).toBe(1);
  breaker.answered();
  expect([breaker.isOpen, breaker.ask(251)]).toEqual([false, "go"]);
  breaker.failed(252);
  expect(breaker.isOpen).toBe(false);
});

test("dead is what gateways say of an app that is not there; a server error is an answer", () => {
  expect([200, 404, 500, 501, 505].some(isDead)).toBe(false);
  expect([502, 503, 504].every(isDead)).toBe(true);
});
