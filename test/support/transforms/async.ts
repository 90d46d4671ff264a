/** What cannot be: it could look at something else than the row. */
export const transform = async () => [];
