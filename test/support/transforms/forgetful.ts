let called = 0;

/** Gives another answer each time. */
export const transform = () => {
  called += 1;
  return [{ n: "0", word: String(called) }];
};
