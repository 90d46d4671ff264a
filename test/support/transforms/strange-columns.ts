export const columns = ["word", "nonsense", "source"];
export const transform = () => [];
