import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

/** Numbers that say what they mean: under the mouse, with the keyboard's focus, by a tap, and to a screen reader. */

interface Tip {
  readonly text: string;
  readonly left: number;
  readonly top: number;
  readonly above: boolean;
}

const tip = signal<Tip | null>(null);

function showTip(target: Element, text: string): void {
  const box = target.getBoundingClientRect();
  const above = box.bottom + 130 > window.innerHeight;
  tip.value = {
    text,
    left: Math.max(8, Math.min(box.left, window.innerWidth - 300)),
    top: above ? box.top - 8 : box.bottom + 8,
    above,
  };
}

const hideTip = () => {
  tip.value = null;
};

/** A value with its meaning. */
export function Explained({
  why,
  children,
  class: name = "",
}: {
  readonly why: string;
  readonly children: ComponentChildren;
  readonly class?: string;
}) {
  const id = useId();
  return (
    <>
      <button
        type="button"
        class={`explained ${name}`}
        aria-describedby={id}
        onMouseEnter={(event) => showTip(event.currentTarget, why)}
        onFocus={(event) => showTip(event.currentTarget, why)}
        onMouseLeave={hideTip}
        onBlur={hideTip}
      >
        {children}
      </button>
      <span id={id} hidden>
        {why}
      </span>
    </>
  );
}

/** The one tooltip there is; Escape or scrolling hides it. */
export function TipLayer() {
  const shown = tip.value;
  if (shown === null) return null;
  const { text, left, top, above } = shown;
  return (
    <div class={`tip ${above ? "above" : ""}`} aria-hidden="true" style={{ left, top }}>
      {text}
    </div>
  );
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
addEventListener("scroll", hideTip, { passive: true });

/** Values of a card under each other, or in a row; each explains itself. */
export function Facts({
  of,
  row = false,
}: {
  readonly of: readonly (readonly [name: string, value: string, why: string])[];
  readonly row?: boolean;
}) {
  return (
    <dl class={row ? "row" : ""}>
      {of.map(([name, value, why]) => (
        <div class="fact" key={name}>
          <dt>{name}</dt>
          <dd>
            <Explained why={why}>{value}</Explained>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** A card of the page. */
export function Card({
  title,
  id,
  aside,
  wide = false,
  children,
}: {
  readonly title: string;
  readonly id: string;
  readonly aside?: ComponentChildren;
  readonly wide?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <section class={`card ${wide ? "wide" : ""}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}
