/** A state of a model: small whole numbers, so that a set of states is a set of short strings. */
export type ModelState = readonly number[];

export interface Model {
  readonly initial: ModelState;
  /** Every step that may be taken in a state. */
  next(state: ModelState): readonly { readonly label: string; readonly state: ModelState }[];
  /** What is wrong with a state; undefined if nothing is. */
  wrong(state: ModelState): string | undefined;
  /** A state that must stay reachable from everywhere, or something hangs for ever. */
  isGoal(state: ModelState): boolean;
}

export interface Exploration {
  readonly states: number;
  /** undefined: every reachable state is as it must be. */
  readonly violation: { readonly what: string; readonly trace: readonly string[] } | undefined;
}

/** Breadth first through every reachable state; a violation comes with the shortest way to it. */
export function explore(model: Model): Exploration {
  const index = new Map<string, number>();
  const keys: string[] = [];
  /** The state that each was first reached from. */
  const parents = new Numbers();
  /** Two numbers for each step: to where, from where. */
  const steps = new Numbers();
  const add = (state: ModelState, parent: number): number => {
    const key = String.fromCharCode(...state);
    const known = index.get(key);
    if (known !== undefined) return known;
    index.set(key, keys.length);
    parents.push(parent);
    return keys.push(key) - 1;
  };
  const stateAt = (at: number) => {
    const key = keys[at]!;
    const state: number[] = [];
    for (let i = 0; i < key.length; i += 1) state.push(key.charCodeAt(i));
    return state;
  };
  /** Labels are not kept: there are too many. */
  const trace = (at: number): string[] => {
    const labels: string[] = [];
    for (let child = at; child !== 0; child = parents.at(child)) {
      const steps = model.next(stateAt(parents.at(child)));
      const taken = steps.find(({ state }) => String.fromCharCode(...state) === keys[child]);
      labels.unshift(taken?.label ?? "");
    }
    return labels;
  };
  const found = (what: string, at: number): Exploration => ({
    states: keys.length,
    violation: { what, trace: trace(at) },
  });

  add(model.initial, 0);
  for (let at = 0; at < keys.length; at += 1) {
    const state = stateAt(at);
    const what = model.wrong(state);
    if (what !== undefined) return found(what, at);
    for (const { state: next } of model.next(state)) {
      steps.push(add(next, at));
      steps.push(at);
    }
  }
  const isGoal = keys.map((_, at) => model.isGoal(stateAt(at)));
  const stuck = firstThatCannotReach(isGoal, steps);
  return stuck === -1
    ? { states: keys.length, violation: undefined }
    : found("hangs for ever", stuck);
}

/** Goes back from the goals along the steps. */
function firstThatCannotReach(isGoal: readonly boolean[], steps: Numbers): number {
  // The steps that lead to a state, one after another: `starts` says where they begin.
  const starts = new Uint32Array(isGoal.length + 1);
  for (let i = 0; i < steps.length; i += 2) starts[steps.at(i) + 1]! += 1;
  for (let at = 0; at < isGoal.length; at += 1) starts[at + 1]! += starts[at]!;
  const ends = starts.slice();
  const earlier = new Uint32Array(steps.length / 2);
  for (let i = 0; i < steps.length; i += 2) {
    const to = steps.at(i);
    earlier[ends[to]!] = steps.at(i + 1);
    ends[to]! += 1;
  }
  const reaches = Uint8Array.from(isGoal, Number);
  const queue = [...isGoal.keys()].filter((at) => isGoal[at]);
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    for (const before of earlier.subarray(starts[at], starts[at + 1])) {
      if (reaches[before] === 1) continue;
      reaches[before] = 1;
      queue.push(before);
    }
  }
  return reaches.indexOf(0);
}

/** A list of numbers that grows and stays small. */
class Numbers {
  #numbers = new Uint32Array(1_024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#numbers.length) {
      const larger = new Uint32Array(this.length * 2);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[this.length] = value;
    this.length += 1;
  }

  at(index: number): number {
    return this.#numbers[index]!;
  }
}

/** Prints what was found, with the shortest way to it. */
export function tell(name: string, { states, violation }: Exploration): void {
  const steps = violation?.trace.map((label) => `\n    ${label}`).join("") ?? "";
  process.stdout.write(`${name}: ${states} states, ${violation?.what ?? "all right"}${steps}\n`);
}
