/** A set of listeners, called in the order they came. */
export class Emitter<T> {
  readonly #listeners = new Set<(value: T) => void>();

  /** Returns a function that takes the listener off again. */
  on(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(value: T): void {
    for (const listener of this.#listeners) listener(value);
  }
}
