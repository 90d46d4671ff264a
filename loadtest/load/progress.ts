import { SingleBar } from "cli-progress";

/** How far a run is and when it ends, on stderr: a bar on a terminal, else a line for each shot. */
export class LoadProgress implements Disposable {
  readonly #bar: SingleBar | undefined;
  readonly #total: number;
  #done = 0;

  constructor(total: number) {
    this.#total = total;
    if (!process.stderr.isTTY) return;
    this.#bar = new SingleBar({
      stream: process.stderr,
      format: "{bar} {value}/{total}  ends in {eta_formatted}  {what}",
      hideCursor: true,
      clearOnComplete: true,
      etaBuffer: 20,
    });
    this.#bar.start(total, 0, { what: "" });
  }

  /** The next shot begins. */
  next(what: string): void {
    if (this.#bar === undefined) this.say(`${this.#done + 1}/${this.#total} ${what}`);
    else this.#bar.update(this.#done, { what });
    this.#done += 1;
  }

  /** Something that is no shot. */
  say(what: string): void {
    if (this.#bar === undefined) process.stderr.write(`${what}\n`);
    else this.#bar.update({ what });
  }

  [Symbol.dispose](): void {
    this.#bar?.stop();
  }
}
