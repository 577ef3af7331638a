// All queues.

import { get } from "./api.js";
import { Sparkline } from "./charts.js";
import { complain } from "./dialog.js";
import { announce, debounced, h, setAttribute, setText } from "./dom.js";
import { bytes, compact, count, duration, percent, plural, rate } from "./format.js";
import { MOST, VirtualTable, textCell } from "./table.js";

const EVERY = 2_000;

const zero = (text, value) => (value ? text(value) : "0");

function nameCell() {
  const link = h("a", {});
  const element = h("th.name", { scope: "row" }, link);
  return {
    element,
    show({ name }) {
      setText(link, name);
      setAttribute(link, "href", `#/queue/${encodeURIComponent(name)}`);
      setAttribute(link, "title", name.length > 24 ? name : null);
    },
  };
}

function sparklineCell() {
  const line = new Sparkline("items", 104, 26);
  return { element: h("td.spark", {}, line.element), show: ({ sparkline }) => line.show(sparkline) };
}

function usedCell() {
  const bar = h("svg:rect.part", { x: 0, y: 0, height: 6, width: 0, rx: 3 });
  const chart = h(
    "svg:svg.used",
    { width: 48, height: 6, viewBox: "0 0 48 6", "aria-hidden": "true" },
    h("svg:rect.whole", { x: 0, y: 0, width: 48, height: 6, rx: 3 }),
    bar,
  );
  const text = h("span");
  const element = h("td.number.limit", {}, chart, text);
  return {
    element,
    show({ used, max_items, max_bytes }) {
      const limits = [max_items !== null && plural(max_items, "item"), max_bytes !== null && bytes(max_bytes)];
      setAttribute(element, "title", used === null ? "No limit" : `of ${limits.filter(Boolean).join(" and ")}`);
      element.classList.toggle("zero", !used);
      chart.classList.toggle("none", used === null);
      setText(text, used === null ? "–" : percent(used));
      setAttribute(bar, "width", 48 * Math.min(1, used || 0));
      setAttribute(bar, "class", `part${used >= 0.95 ? " full" : used >= 0.8 ? " high" : ""}`);
    },
  };
}

function deadCell() {
  const element = h("td.number.dead");
  return {
    element,
    show({ dead, dead_letter_queue }) {
      setText(element, dead_letter_queue === null ? "–" : compact(dead));
      element.classList.toggle("zero", !dead);
      setAttribute(element, "title", dead_letter_queue === null ? "No dead letter queue" : `In ${dead_letter_queue}`);
    },
  };
}

const COLUMNS = [
  { label: "Queue", sort: "name", kind: "c-name", make: nameCell },
  {
    label: "Items",
    sort: "items",
    number: true,
    kind: "c-items",
    make: textCell(({ items }) => compact(items), ".number.strong"),
  },
  {
    label: "Bytes",
    sort: "bytes",
    number: true,
    kind: "c-bytes",
    make: textCell((row) => zero(bytes, row.bytes), ".number.c-bytes"),
  },
  {
    label: "In/s",
    sort: "in_rate",
    number: true,
    kind: "c-rate",
    make: textCell((row) => rate(row.in_rate), ".number"),
  },
  {
    label: "Out/s",
    sort: "out_rate",
    number: true,
    kind: "c-rate",
    make: textCell((row) => rate(row.out_rate), ".number"),
  },
  { label: "Items, 10 min", kind: "c-spark", make: sparklineCell },
  {
    label: "Oldest",
    sort: "oldest_ms",
    number: true,
    kind: "c-age",
    make: textCell((row) => duration(row.oldest_ms), ".number.c-age"),
  },
  {
    label: "Waiters",
    sort: "waiters",
    number: true,
    kind: "c-small",
    make: textCell((row) => compact(row.waiters), ".number.c-small"),
  },
  {
    label: "Open",
    sort: "open",
    number: true,
    kind: "c-small",
    make: textCell((row) => compact(row.open), ".number.c-small"),
  },
  {
    label: "Delayed",
    sort: "delayed",
    number: true,
    kind: "c-small",
    make: textCell((row) => compact(row.delayed), ".number.c-small"),
  },
  { label: "Dead", sort: "dead", number: true, kind: "c-dead", make: deadCell },
  { label: "Limit used", sort: "used", number: true, kind: "c-used", make: usedCell },
];

const SORTS = COLUMNS.filter(({ sort }) => sort).map(({ label, sort }) => [sort, label]);

/** The page of all queues. */
export class Overview {
  constructor(app, { parameters }) {
    this.app = app;
    this.title = "Queues";
    this.filter = parameters.get("filter") || "";
    const sort = SORTS.some(([name]) => name === parameters.get("sort")) ? parameters.get("sort") : "name";
    const order = parameters.get("order") === "desc" ? "desc" : "asc";
    this.table = new VirtualTable("Queues", COLUMNS, (offset, limit, signal) => this.#load(offset, limit, signal), {
      sort,
      order,
      onsort: () => this.#sorted(),
      onload: (answer) => this.#loaded(answer),
    });
    this.search = h("input", {
      type: "search",
      placeholder: "Filter by name, or a pattern such as mail_*",
      value: this.filter,
      "aria-label": "Filter queues",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: 250,
      oninput: debounced(() => this.#typed(), 120),
      onkeydown: (event) => {
        if (event.key === "ArrowDown") this.#down(event);
        else if (event.key === "Escape") this.#clear();
      },
    });
    this.found = h("span.muted.found", { "aria-live": "polite" }, "Loading…");
    this.sorts = h(
      "select",
      {
        "aria-label": "Sort by",
        onchange: () => {
          const [by, direction] = this.sorts.value.split(" ");
          this.table.sortBy(by, direction);
          this.#sorted();
        },
      },
      SORTS.flatMap(([name, label]) =>
        name === "name"
          ? [h("option", { value: "name asc" }, "Name")]
          : [h("option", { value: `${name} desc` }, `${label}, most first`)],
      ),
    );
    this.none = h("div.empty", { hidden: true });
    this.list = h("div.panel.list", {}, this.table.element, this.none);
    this.element = h(
      "div",
      {},
      h("div.heading", {}, h("h1", {}, "Queues"), this.#tellHealth()),
      this.#tiles(),
      h(
        "div.toolbar",
        {},
        h("div.search", {}, this.search, h("kbd", { "aria-hidden": "true" }, "/")),
        this.found,
        h("div.end.sorts", {}, this.sorts),
      ),
      this.list,
    );
    this.#sorted(false);
    this.rates = { in: [], out: [] };
    this.#begin();
    this.table.follow(EVERY, (error) => this.#failed(error));
    if (app.health) this.health(app.health);
  }

  close() {
    this.table.close();
    this.closed = true;
  }

  resume() {
    this.#refresh();
    this.#begin();
  }

  async #begin() {
    try {
      const { in_rate, out_rate } = await get("/history");
      // Ticks come each second; the hour is there for what came before.
      const last = (values) => values.filter((value) => value !== null).slice(-60);
      this.rates = { in: last(in_rate), out: last(out_rate) };
      this.#drawRates();
    } catch {
      // The tiles show figures without their lines.
    }
  }

  // Figures

  #tiles() {
    this.tiles = {};
    const tile = (name, label, line) => {
      const value = h("dd", {}, "–");
      this.tiles[name] = value;
      return h("div.tile", {}, h("dt", {}, label), value, line);
    };
    this.lines = { in: new Sparkline("in", 120, 30), out: new Sparkline("out", 120, 30) };
    return h(
      "dl.tiles.totals",
      {},
      tile("items", "Items"),
      tile("bytes", "Bytes"),
      tile("in", "In/s", this.lines.in.element),
      tile("out", "Out/s", this.lines.out.element),
      tile("open", "Open"),
      tile("delayed", "Delayed"),
      tile("retrying", "Retrying"),
      tile("waiters", "Waiters"),
      tile("clients", "Clients"),
    );
  }

  tick({ totals, connections }) {
    setText(this.tiles.items, compact(totals.items));
    setText(this.tiles.bytes, zero(bytes, totals.bytes));
    setText(this.tiles.in, rate(totals.in_rate));
    setText(this.tiles.out, rate(totals.out_rate));
    for (const name of ["open", "delayed", "retrying", "waiters"]) setText(this.tiles[name], compact(totals[name]));
    setText(this.tiles.clients, compact(connections));
    this.ticks = (this.ticks || 0) + 1;
    if (this.ticks % 10 === 0) {
      this.rates.in = [...this.rates.in, totals.in_rate].slice(-60);
      this.rates.out = [...this.rates.out, totals.out_rate].slice(-60);
      this.#drawRates();
    }
  }

  #drawRates() {
    for (const side of ["in", "out"]) this.lines[side].show(this.rates[side]);
  }

  #tellHealth() {
    this.state = h("span.muted");
    return this.state;
  }

  health({ ok, reasons }) {
    setText(this.state, ok ? "" : reasons.map(({ text }) => text).join("; "));
  }

  // The list

  async #load(offset, limit, signal) {
    const { sort, order } = this.table;
    const answer = await get("/queues", { filter: this.filter, sort, order, offset, limit, sparkline: true }, signal);
    return { ...answer, rows: answer.queues };
  }

  #refresh() {
    this.table.reload().catch((error) => this.#failed(error));
  }

  #failed(error) {
    // While there is no connection the banner says so.
    if (error.status && error.status !== 401) complain(error);
  }

  #loaded({ total, totals }) {
    const text = this.filter ? `${count(total)} of ${plural(totals.queues, "queue")}` : plural(total, "queue");
    setText(this.found, total > MOST ? `${text}; the first ${count(MOST)} are listed` : text);
    this.table.element.hidden = !total;
    this.none.hidden = total > 0;
    if (!total) this.#explain(totals.queues);
  }

  #explain(queues) {
    const kind = queues ? "filter" : "empty";
    if (this.none.dataset.kind === kind && kind === "empty") return;
    this.none.dataset.kind = kind;
    if (queues) {
      this.none.replaceChildren(
        h("h2", {}, "No queue matches"),
        h("p", {}, "The filter looks for its text anywhere in a name. With * or ? it has to match the whole name."),
        h("button.button", { type: "button", onclick: () => this.#clear() }, "Clear the filter"),
      );
      return;
    }
    const command = `printf 'set jobs 0 0 5\\r\\nhello\\r\\nquit\\r\\n' | nc ${location.hostname || "127.0.0.1"} 22133`;
    this.none.replaceChildren(
      h("h2", {}, "No queues yet"),
      h("p", {}, "A queue is made when the first item is put on it. From a shell:"),
      h("code.command", { tabindex: 0 }, command),
      h("p", {}, "Or with any memcache client, on the server's port. Or here:"),
      h(
        "button.button.primary",
        {
          type: "button",
          onclick: async () => (await import("./actions.js")).put(this.app, null),
        },
        "Put an item",
      ),
    );
  }

  #typed() {
    const filter = this.search.value.trim();
    if (filter === this.filter) return;
    this.filter = filter;
    this.#sorted();
    this.table.reload({ anew: true }).then(
      () => announce(`${plural(this.table.total, "queue")} found`),
      (error) => this.#failed(error),
    );
  }

  #clear() {
    this.search.value = "";
    this.#typed();
    this.search.focus();
  }

  #down(event) {
    const first = this.table.body.querySelector("a");
    if (!first) return;
    event.preventDefault();
    first.focus();
  }

  /** Keep in the address what is shown, so that it can be sent to somebody. */
  #sorted(replace = true) {
    const { sort, order } = this.table;
    const value = `${sort} ${order}`;
    this.sorts.value = [...this.sorts.options].some((option) => option.value === value) ? value : "name asc";
    if (!replace) return;
    const parameters = new URLSearchParams();
    if (this.filter) parameters.set("filter", this.filter);
    if (sort !== "name" || order !== "asc") {
      parameters.set("sort", sort);
      parameters.set("order", order);
    }
    const query = parameters.toString();
    history.replaceState(null, "", `#/${query ? `?${query}` : ""}`);
  }
}
