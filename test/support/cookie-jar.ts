import { send } from "./sidecar.ts";
import type { Answer } from "./sidecar.ts";

/** A client that keeps cookies, as a browser does. */
export class CookieJar {
  readonly cookies = new Map<string, string>();

  /** One request with the cookies it keeps. */
  async send(url: string, options: { method?: string; body?: string } = {}): Promise<Answer> {
    const cookie = [...this.cookies].map((pair) => pair.join("=")).join("; ");
    const answer = await send(url, { ...options, headers: cookie === "" ? {} : { cookie } });
    for (const line of answer.headers["set-cookie"] ?? []) this.#keep(line);
    return answer;
  }

  /** Names of the tokens it keeps. */
  get tokens(): string[] {
    return [...this.cookies.keys()].filter((name) => name.startsWith("crossfade_"));
  }

  #keep(line: string): void {
    const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
    const [name = "", value = ""] = pair.split(/=(.*)/s);
    if (attributes.includes("Max-Age=0")) this.cookies.delete(name);
    else this.cookies.set(name, value);
  }
}
