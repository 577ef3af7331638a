// A table of which only the rows in view exist, however many there are.  The page itself scrolls.

import { h, setAttribute, setText } from "./dom.js";

const PAGE = 100;
const SPARE = 8;
const SETTLED = 60;
const KEPT = 30;

/** How many rows a browser can lay out below each other. */
export const MOST = 400_000;

/**
 * Rows of the server, by pages, as they come into view.
 */
export class VirtualTable {
  /**
   * @param {string} caption what the table is, for screen readers.
   * @param {Array} columns `{label, name, sort, number, kind, make}`: `make()` gives a cell and how it shows a row:
   *     `{element, show(row)}`.  `sort` is by what the server can sort.
   * @param {function(number, number, AbortSignal): Promise<{total, rows}>} load some rows, from an offset on.
   * @param {{sort, order, onsort, onload}} options the first order; called with what is clicked, and with what came.
   */
  constructor(caption, columns, load, { sort, order, onsort, onload } = {}) {
    this.columns = columns;
    this.load = load;
    this.onload = onload || (() => {});
    this.onsort = onsort || (() => {});
    this.sort = sort;
    this.order = order;
    this.total = 0;
    this.shown = new Map();
    this.free = [];
    this.pages = new Map();
    this.loading = null;
    this.above = h("tr.spacer", { "aria-hidden": "true" }, h("td"));
    this.below = this.above.cloneNode(true);
    this.body = h("tbody", { onkeydown: (event) => this.#key(event) }, this.above, this.below);
    this.heads = columns.map((column) => this.#head(column));
    this.element = h(
      "table.virtual",
      {},
      h("caption.sr-only", {}, caption),
      h("thead", {}, h("tr", { "aria-rowindex": 1 }, this.heads)),
      this.body,
    );
    this.#mark();
    this.onscroll = () => this.#soon();
    window.addEventListener("scroll", this.onscroll, { passive: true });
    window.addEventListener("resize", this.onscroll);
  }

  close() {
    this.closed = true;
    window.removeEventListener("scroll", this.onscroll);
    window.removeEventListener("resize", this.onscroll);
    clearTimeout(this.settle);
    this.loading?.abort();
  }

  /**
   * Look anew now and then: each `pause` milliseconds, and less often where the server has so much to sort that its
   * answers take long.
   * @param {function(Error)} failed told of what goes wrong.
   */
  async follow(pause, failed) {
    while (!this.closed) {
      const began = performance.now();
      if (!document.hidden) await this.reload().catch(failed);
      const took = performance.now() - began;
      await new Promise((resolve) => setTimeout(resolve, Math.max(pause, 5 * took)));
    }
  }

  /** Show what the server has now, from the beginning where the question is another one. */
  async reload({ anew = false } = {}) {
    if (anew) {
      this.loading?.abort();
      this.loading = null;
      window.scrollTo({ top: 0 });
      return this.#fetch([0], true);
    }
    if (this.loading || this.closed) return undefined;
    const [first, last] = this.#range(0);
    return this.#fetch(this.#pagesOf(first, last));
  }

  // Order

  #head(column) {
    const kind = [column.number && "number", column.kind]
      .filter(Boolean)
      .map((word) => `.${word}`)
      .join("");
    if (!column.sort) return h(`th${kind}`, { scope: "col" }, column.label);
    const arrow = h("span.arrow", { "aria-hidden": "true" });
    const button = h(
      "button",
      { type: "button", onclick: () => this.#choose(column) },
      column.number ? [arrow, column.label] : [column.label, arrow],
    );
    return h(`th${kind}`, { scope: "col", title: column.title }, button);
  }

  #choose(column) {
    const first = column.number ? "desc" : "asc";
    const order = this.sort !== column.sort ? first : this.order === "asc" ? "desc" : "asc";
    this.sortBy(column.sort, order);
    this.onsort(column.sort, order);
  }

  /** Sort by something else. */
  sortBy(sort, order) {
    this.sort = sort;
    this.order = order;
    this.#mark();
    this.reload({ anew: true });
  }

  #mark() {
    for (const [at, column] of this.columns.entries()) {
      const now = column.sort && column.sort === this.sort;
      setAttribute(this.heads[at], "aria-sort", now ? `${this.order}ending` : null);
      const arrow = this.heads[at].querySelector(".arrow");
      if (arrow) setText(arrow, now ? (this.order === "asc" ? "↑" : "↓") : "");
    }
  }

  // Rows

  #range(spare) {
    const top = this.above.getBoundingClientRect().top;
    const first = Math.floor(Math.max(0, -top) / this.rowHeight) - spare;
    const last = Math.ceil((window.innerHeight - Math.min(0, top)) / this.rowHeight) + spare;
    const rows = Math.min(this.total, MOST);
    return [Math.max(0, Math.min(first, rows - 1)), Math.max(0, Math.min(last, rows))];
  }

  get rowHeight() {
    return window.innerWidth <= 640 ? 44 : 40;
  }

  #pagesOf(first, last) {
    const found = [];
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(1, last); page++) found.push(page);
    return found;
  }

  async #fetch(pages, anew = false) {
    const abort = new AbortController();
    this.loading = abort;
    try {
      const answers = await Promise.all(pages.map((page) => this.load(page * PAGE, PAGE, abort.signal)));
      if (abort.signal.aborted || this.closed) return;
      if (anew) this.pages.clear();
      for (const [at, page] of pages.entries()) {
        this.pages.delete(page);
        this.pages.set(page, answers[at].rows);
      }
      while (this.pages.size > KEPT) this.pages.delete(this.pages.keys().next().value);
      this.total = answers[0].total;
      setAttribute(this.element, "aria-rowcount", this.total + 1);
      this.onload(answers[0]);
      this.#lay();
      this.element.classList.add("loaded");
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      if (this.loading === abort) this.loading = null;
    }
  }

  #soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.closed) return;
      this.#lay();
      // While somebody drags the page along, what passes by is not asked for.
      clearTimeout(this.settle);
      this.settle = setTimeout(() => this.#miss(), SETTLED);
    });
  }

  #miss() {
    const [first, last] = this.#range(SPARE);
    const missing = this.#pagesOf(first, last).filter((page) => !this.pages.has(page));
    if (!missing.length || !this.total) return;
    this.loading?.abort();
    this.#fetch(missing).catch(() => {});
  }

  #lay() {
    const [first, last] = this.#range(SPARE);
    const focused = this.body.contains(document.activeElement) ? document.activeElement.closest("tr") : null;
    if (!focused && this.shown.size === last - first && !this.shown.has(first) && !this.shown.has(last - 1))
      this.#relabel(first);
    for (const [index, row] of this.shown) {
      if ((index < first || index >= last) && row.element !== focused) {
        row.element.remove();
        this.shown.delete(index);
        this.free.push(row);
      } else if (index >= Math.min(this.total, MOST)) {
        row.element.remove();
        this.shown.delete(index);
      }
    }
    // Where rows have to go in between others, they go before the next one that is there.
    let next = this.below;
    for (let index = last - 1; index >= first; index--) {
      let row = this.shown.get(index);
      if (!row) {
        row = this.free.pop() || this.#make();
        this.shown.set(index, row);
        setAttribute(row.element, "aria-rowindex", index + 2);
        this.body.insertBefore(row.element, next);
      }
      const data = this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
      row.element.classList.toggle("waiting", !data);
      if (data) for (const cell of row.cells) cell.show(data);
      next = row.element;
    }
    const height = (rows) => `${Math.max(0, rows) * this.rowHeight}px`;
    // A focused row out of view stays where it is, and its height is taken off.
    const [focusedAt] = focused ? [this.#indexOf(focused)] : [null];
    const before = first - (focusedAt !== null && focusedAt < first ? 1 : 0);
    const after = Math.min(this.total, MOST) - last - (focusedAt !== null && focusedAt >= last ? 1 : 0);
    this.above.firstChild.style.height = height(before);
    this.below.firstChild.style.height = height(after);
  }

  /** Where all rows are others than before, they stay where they are in the document. */
  #relabel(first) {
    const rows = [...this.shown.entries()].sort(([one], [other]) => one - other).map(([, row]) => row);
    this.shown = new Map(rows.map((row, at) => [first + at, row]));
    for (const [index, row] of this.shown) setAttribute(row.element, "aria-rowindex", index + 2);
  }

  #indexOf(element) {
    for (const [index, row] of this.shown) if (row.element === element) return index;
    return null;
  }

  #make() {
    const cells = this.columns.map((column) => column.make());
    return {
      element: h(
        "tr",
        {},
        cells.map(({ element }) => element),
      ),
      cells,
    };
  }

  #key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    const index = row && this.#indexOf(row);
    if (!by || index === null || event.target.matches("input, select")) return;
    const target = index + by;
    if (target < 0 || target >= this.total) return;
    event.preventDefault();
    // Keys may come faster than the browser draws.
    if (!this.shown.has(target)) this.#lay();
    this.shown.get(target)?.element.querySelector("a, button")?.focus();
  }
}

/** A cell whose text a function gives, with a class "zero" where there is nothing to see. */
export function textCell(text, kind = "") {
  return () => {
    const element = h(`td${kind}`);
    return {
      element,
      show(row) {
        const shown = text(row);
        setText(element, shown);
        element.classList.toggle("zero", shown === "0" || shown === "–");
      },
    };
  };
}
