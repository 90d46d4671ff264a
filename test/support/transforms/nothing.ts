export const columns = ["n", "word", "nonsense"];
