// Grid: a list of any length in columns, of which only what is near the window is in the document. Arrow keys move within
// it. Knows nothing of what its cells show.
import { h } from "../core/dom.js";

const GAP = 14; // px
const AHEAD = 2; // rows drawn beyond the window

export class Grid {
  #cells = new Map();
  #current = 0;
  #total = 0;
  #columns = 1;
  #row = 1;
  #waiting = false;

  /** draw(index) gives a cell's element, in which the one with data-main takes the focus. */
  constructor(root, { label, smallest, heightOf, draw }) {
    this.root = root;
    this.smallest = smallest;
    this.heightOf = heightOf;
    this.draw = draw;
    root.classList.add("l-grid");
    root.setAttribute("role", "list");
    root.setAttribute("aria-label", label);
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusin", (event) => this.#focused(event));
    new ResizeObserver(() => this.lay()).observe(root);
    document.addEventListener("scroll", () => this.#soon(), { passive: true, capture: true });
    window.addEventListener("resize", () => this.#soon());
  }

  get current() {
    return this.#current;
  }

  /** There are so many now, and everything may look different. */
  reset(total) {
    this.#total = total;
    this.#current = Math.min(this.#current, Math.max(0, total - 1));
    const focused = this.root.contains(document.activeElement) ? this.#current : null;
    this.#forget(() => true);
    this.lay();
    if (focused !== null && total) this.focus(focused);
  }

  /** Sizes from the width there is. */
  lay() {
    const width = this.root.clientWidth;
    if (!width) return;
    const columns = Math.max(1, Math.floor((width + GAP) / (this.smallest() + GAP)));
    const cell = (width - GAP * (columns - 1)) / columns;
    const row = this.heightOf(cell) + GAP;
    if (columns !== this.#columns || row !== this.#row) this.#forget(() => true);
    this.#columns = columns;
    this.#row = row;
    this.root.style.height = `${Math.max(0, Math.ceil(this.#total / columns) * row - GAP)}px`;
    this.root.style.setProperty("--cell", `${cell}px`);
    this.#show();
  }

  /** Brings a cell into view and gives it the focus. */
  focus(index) {
    const to = Math.max(0, Math.min(this.#total - 1, index));
    this.#current = to;
    const top = this.root.getBoundingClientRect().top + Math.floor(to / this.#columns) * this.#row;
    const room = { top: 120, bottom: window.innerHeight - this.#row };
    if (top < room.top) scroller().scrollBy(0, top - room.top);
    else if (top > room.bottom) scroller().scrollBy(0, top - room.bottom);
    this.#show();
    this.#cells.get(to)?.querySelector("[data-main]")?.focus({ preventScroll: true });
    this.#mark();
  }

  #soon() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.#show();
    });
  }

  #show() {
    if (!this.root.isConnected || !this.root.clientWidth) return;
    const top = -this.root.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / this.#row) - AHEAD) * this.#columns;
    const last = Math.min(this.#total, (Math.ceil((top + window.innerHeight) / this.#row) + AHEAD) * this.#columns);
    this.#forget((index, cell) => (index < first || index >= last) && !cell.contains(document.activeElement));
    for (let index = first; index < last; index += 1) if (!this.#cells.has(index)) this.#add(index);
    this.#mark();
  }

  #add(index) {
    const cell = h("div.l-cell", { role: "listitem", dataset: { index }, aria: { setsize: this.#total, posinset: index + 1 } }, this.draw(index));
    cell.style.transform = `translate(calc((var(--cell) + ${GAP}px) * ${index % this.#columns}), ${
      Math.floor(index / this.#columns) * this.#row
    }px)`;
    cell.style.height = `${this.#row - GAP}px`;
    // In the order of the list, so that readers and the Tab key go through it as the eye does.
    const after = [...this.#cells.entries()].filter(([other]) => other > index).sort(([a], [b]) => a - b)[0];
    this.root.insertBefore(cell, after ? after[1] : null);
    this.#cells.set(index, cell);
  }

  #forget(which) {
    for (const [index, cell] of [...this.#cells]) {
      if (which(index, cell)) {
        cell.remove();
        this.#cells.delete(index);
      }
    }
  }

  /** Only the current cell is reached by Tab; arrows go on from it. */
  #mark() {
    for (const [index, cell] of this.#cells) {
      for (const control of cell.querySelectorAll("button, a, input")) control.tabIndex = index === this.#current ? 0 : -1;
    }
  }

  #focused(event) {
    const cell = event.target.closest(".l-cell");
    if (cell) {
      this.#current = Number(cell.dataset.index);
      this.#mark();
    }
  }

  #key(event) {
    const page = Math.max(1, Math.floor(window.innerHeight / this.#row)) * this.#columns;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.#columns, ArrowUp: -this.#columns, PageDown: page, PageUp: -page,
      Home: -Infinity, End: Infinity,
    };
    if (!(event.key in steps) || event.altKey || event.metaKey || event.target.matches("select, input:not([type=checkbox])"))
      return;
    event.preventDefault();
    const wanted = this.#current + steps[event.key];
    const isRow = event.key === "ArrowDown" || event.key === "ArrowUp";
    if (!isRow || (wanted >= 0 && wanted < this.#total)) this.focus(wanted);
  }
}

const scroller = () => document.scrollingElement;
