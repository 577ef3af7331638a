// One queue: figures, charts, items, settings.

import * as actions from "./actions.js";
import { get, may, queuePath } from "./api.js";
import { courseCharts } from "./charts.js";
import { complain } from "./dialog.js";
import { fill, h, segments, setAttribute, setText } from "./dom.js";
import { bytes, compact, count, duration, moment, percent, rate } from "./format.js";
import { Items } from "./items.js";
import { Samples } from "./samples.js";
import { settingsTable } from "./settings.js";

const EVERY = 5_000;
const SPANS = [
  [60_000, "1 min"],
  [300_000, "5 min"],
  [3_600_000, "1 hour"],
];

const FIGURES = [
  ["items", "Items", (row) => compact(row.items)],
  ["bytes", "Bytes", (row) => (row.bytes ? bytes(row.bytes) : "0")],
  ["in", "In/s", (row) => rate(row.in_rate)],
  ["out", "Out/s", (row) => rate(row.out_rate)],
  ["oldest", "Oldest", (row) => duration(row.oldest_ms)],
  ["open", "Open", (row) => compact(row.open)],
  ["delayed", "Delayed", (row) => compact(row.delayed)],
  ["retrying", "Retrying", (row) => compact(row.retrying)],
  ["dead", "Dead", (row, queue) => (queue.dead_letter_queue === null ? "–" : compact(row.dead))],
  ["waiters", "Waiters", (row) => compact(row.waiters)],
];

const queueLink = (name) => h("a.mono", { href: `#/queue/${encodeURIComponent(name)}` }, name);

/** The page of one queue. */
export class QueuePage {
  constructor(app, { name, parameters }) {
    this.app = app;
    this.name = name;
    this.title = name;
    this.queues = [name];
    this.span = 300_000;
    this.samples = new Samples();
    this.queue = null;
    this.pills = h("span.pills");
    this.buttons = h("div.actions");
    this.charts = courseCharts("Items", "in the queue");
    this.items = new Items(app, this, parameters);
    this.settings = h("div.settings");
    this.about = h("dl.facts");
    this.content = h(
      "div",
      {},
      this.#tiles(),
      h(
        "section.panel",
        { "aria-label": "Charts" },
        h(
          "header",
          {},
          h("h2", {}, "Now and before"),
          h(
            "div.end",
            {},
            segments("Time", SPANS, this.span, (span) => {
              this.span = span;
              this.#draw();
            }),
          ),
        ),
        h(
          "div.charts",
          {},
          this.charts.map(({ element }) => element),
        ),
      ),
      this.items.element,
      h(
        "div.halves",
        {},
        h(
          "section.panel",
          { "aria-label": "Settings" },
          h("header", {}, h("h2", {}, "Settings in force")),
          this.settings,
        ),
        h("section.panel", { "aria-label": "About" }, h("header", {}, h("h2", {}, "Since the start")), this.about),
      ),
    );
    this.missing = h("div.panel.empty", { hidden: true });
    this.element = h(
      "div",
      {},
      h(
        "div.heading",
        {},
        h("span.crumb", {}, h("a", { href: "#/" }, "Queues"), " /"),
        h("h1.mono", {}, name),
        this.pills,
        this.buttons,
      ),
      this.content,
      this.missing,
    );
    this.refresh();
    this.#history();
    this.timer = setInterval(() => {
      if (!document.hidden) this.refresh();
    }, EVERY);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.items.close();
    for (const chart of this.charts) chart.close();
  }

  resume() {
    this.refresh();
    this.#history();
    this.items.refresh();
  }

  /** Ask for the queue anew. */
  async refresh() {
    try {
      const queue = await get(queuePath(this.name));
      if (!this.closed) this.#show(queue);
    } catch (error) {
      if (this.closed) return;
      if (error.status === 404) this.#absent();
      else if (error.status === 403) this.#refused(error);
      else if (error.status && error.status !== 401) complain(error);
      else if (!error.status && !this.queue && this.app.events.state !== "lost") complain(error);
    }
  }

  async #history() {
    try {
      this.samples.begin(await get(queuePath(this.name, "/history")));
    } catch {
      // A queue without a past: it begins with the first tick.
    }
    if (!this.closed) this.#draw();
  }

  #tiles() {
    this.tiles = {};
    return h(
      "dl.tiles.figures",
      {},
      FIGURES.map(([key, label]) => {
        this.tiles[key] = h("dd", {}, "–");
        return h("div.tile", {}, h("dt", {}, label), this.tiles[key]);
      }),
      h("div.tile", {}, h("dt", {}, "Limit used"), (this.tiles.used = h("dd", {}, "–"))),
    );
  }

  #figures(row) {
    for (const [key, , text] of FIGURES) setText(this.tiles[key], text(row, this.queue));
  }

  #show(queue) {
    const first = this.queue === null;
    this.queue = queue;
    this.content.hidden = false;
    this.missing.hidden = true;
    this.#figures(queue);
    setText(this.tiles.used, queue.used === null ? "–" : percent(queue.used));
    setAttribute(this.tiles.used, "class", queue.used >= 0.95 ? "bad" : queue.used >= 0.8 ? "warn" : null);
    fill(
      this.pills,
      queue.durable ? null : h("span.pill", { title: "durable = false: gone when the server ends" }, "in memory"),
      queue.parent === null ? null : h("span.pill", {}, "child of ", queueLink(queue.parent)),
      queue.aliases.map((alias) => h("span.pill", {}, "alias ", h("code", {}, alias))),
      queue.exists ? null : h("span.pill", {}, "not made yet: clients wait for its first item"),
    );
    if (first) {
      this.#actions();
      this.items.begin();
    }
    this.items.counts(queue);
    settingsTable(this.settings, queue.settings, queueLink);
    this.#facts(queue);
  }

  #facts(queue) {
    const { counters } = queue;
    const known = {
      total_items: "Put",
      transactions: "Opened",
      canceled_transactions: "Given back",
      expired_items: "Expired",
      discarded: "Discarded for newer ones",
      dead: "Moved to dead letters",
      duplicates: "Duplicates left out",
      total_flushes: "Flushed",
    };
    const row = (label, value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));
    fill(
      this.about,
      Object.entries(known)
        .filter(([key]) => key in counters)
        .map(([key, label]) => row(label, count(counters[key]))),
      row("Made", queue.created ? moment(queue.created) : "–"),
      queue.dead_letter_queue === null ? null : row("Dead letters go to", queueLink(queue.dead_letter_queue)),
      queue.children.length ? row("Children", h("span.links", {}, queue.children.map(queueLink))) : null,
    );
  }

  #actions() {
    const { session } = this.app;
    const admin = may(session, "admin", this.name);
    const after = (done) => {
      if (done !== undefined) this.changed();
    };
    const button = (text, call, danger = false) =>
      h(
        `button.button${danger ? ".danger-quiet" : ""}`,
        {
          type: "button",
          onclick: async () => after(await call()),
        },
        text,
      );
    fill(
      this.buttons,
      may(session, "write", this.name) ? button("Put an item…", () => actions.put(this.app, this.name)) : null,
      may(session, "read", this.name) ? button("Move items…", () => actions.requeue(this.queue)) : null,
      admin ? button("Drop items…", () => actions.flush(this.queue), true) : null,
      admin ? button("Delete queue…", () => actions.remove(this.app, this.queue), true) : null,
      admin ? null : h("span.muted", {}, "You may not administrate this queue."),
    );
  }

  /** Somebody changed something: look anew. */
  changed() {
    this.refresh();
    this.items.refresh();
  }

  #absent() {
    this.queue = null;
    this.content.hidden = true;
    this.missing.hidden = false;
    fill(this.pills);
    fill(this.buttons);
    fill(
      this.missing,
      h("h2", {}, "There is no such queue"),
      h("p", {}, "It was deleted, or nobody has put an item on it yet. The first item makes it."),
      h(
        "button.button.primary",
        {
          type: "button",
          onclick: async () => {
            if ((await actions.put(this.app, this.name)) !== undefined) this.changed();
          },
        },
        "Put an item…",
      ),
      " ",
      h("a.button", { href: "#/" }, "All queues"),
    );
  }

  #refused(error) {
    this.#absent();
    fill(
      this.missing,
      h("h2", {}, "You may not see this queue"),
      h("p", {}, error.message),
      h("a.button", { href: "#/" }, "All queues"),
    );
  }

  #draw(end = Date.now()) {
    const samples = this.samples.of(this.span);
    const newest = samples.length ? samples[samples.length - 1].time : end;
    for (const chart of this.charts) chart.show(samples, this.span, newest);
  }

  tick({ time, queues }) {
    const figures = queues[this.name];
    if (!figures) {
      if (this.queue && figures === null) this.refresh();
      return;
    }
    if (!this.queue) {
      this.refresh();
      return;
    }
    this.samples.add({ time, ...figures });
    Object.assign(this.queue, figures);
    this.#figures(this.queue);
    this.items.counts(this.queue);
    this.ticks = (this.ticks || 0) + 1;
    if (this.span <= 300_000 || this.ticks % 5 === 0) this.#draw();
  }
}
