// The server itself.

import { change, get, mayServer } from "./api.js";
import { courseCharts } from "./charts.js";
import { ask, complain, note } from "./dialog.js";
import { fill, h, setAttribute, setText } from "./dom.js";
import { bytes, compact, count, duration, moment, percent, plural } from "./format.js";
import { Samples } from "./samples.js";

const EVERY = 5_000;
const HOUR = 3_600_000;

const STATUSES = {
  up: ["Up", "Everything is accepted.", "Clients can put, read and delete again, at once."],
  readonly: [
    "Read-only",
    "Nothing is put, moved, flushed or deleted.",
    "Producers are refused from now on. Consumers go on: so the server can be emptied before it is taken away.",
  ],
  quiescent: [
    "Quiescent",
    "Nothing is read either.",
    "Producers and consumers are refused from now on. What is open can be closed and given back; who waits goes on.",
  ],
};

const COUNTERS = {
  cmd_set: "Sets",
  cmd_get: "Reads",
  get_hits: "Reads that found an item",
  get_misses: "Reads that found none",
  cmd_peek: "Peeks",
  total_items: "Items put",
  expired_items: "Items expired",
  discarded: "Items discarded for newer ones",
  bytes_read: "Received",
  bytes_written: "Sent",
  total_connections: "Connections",
  rejected_connections: "Connections refused",
  idle_kicks: "Connections ended for their silence",
  auth_cmds: "Log-ins",
  auth_errors: "Log-ins that failed",
  queue_creates: "Queues made",
  queue_deletes: "Queues deleted",
  queue_expires: "Queues deleted for their age",
};

const row = (label, value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));

/** The page of the server. */
export class Server {
  constructor(app) {
    this.app = app;
    this.title = "Server";
    this.samples = new Samples();
    this.charts = courseCharts("Items in all queues", "items");
    this.tiles = {};
    const tile = (key, label) => {
      this.tiles[key] = h("dd", {}, "–");
      return h("div.tile", {}, h("dt", {}, label), this.tiles[key]);
    };
    this.trouble = h("div.trouble", { role: "status" });
    this.switch = h("div.statuses");
    this.about = h("dl.facts.about");
    this.counters = h("dl.facts");
    this.settings = h("dl.facts.wide");
    const panel = (title, content, ...more) =>
      h("section.panel", { "aria-label": title }, h("header", {}, h("h2", {}, title), more), content);
    this.reload = mayServer(app.session)
      ? h("button.button", { type: "button", onclick: () => this.#reload() }, "Read settings of queues again…")
      : null;
    this.element = h(
      "div",
      {},
      h("div.heading", {}, h("h1", {}, "Server")),
      this.trouble,
      h(
        "dl.tiles.server",
        {},
        tile("uptime", "Up for"),
        tile("memory", "Memory"),
        tile("disk", "Disk free"),
        tile("connections", "Clients"),
        tile("queues", "Queues"),
        tile("items", "Items"),
      ),
      panel("Status", this.switch),
      h(
        "section.panel",
        { "aria-label": "Charts" },
        h("header", {}, h("h2", {}, "The last hour")),
        h(
          "div.charts",
          {},
          this.charts.map(({ element }) => element),
        ),
      ),
      h("div.halves", {}, panel("About", this.about), panel("Since the start", this.counters)),
      panel("Settings of the server", this.settings, this.reload && h("div.end", {}, this.reload)),
    );
    this.#statuses(app.tick?.status || null);
    this.#refresh();
    this.#history();
    this.timer = setInterval(() => {
      if (!document.hidden) this.#refresh();
    }, EVERY);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    for (const chart of this.charts) chart.close();
  }

  resume() {
    this.#refresh();
    this.#history();
  }

  async #refresh() {
    try {
      const server = await get("/server");
      if (!this.closed) this.#show(server);
    } catch (error) {
      if (!this.closed && error.status && error.status !== 401) complain(error);
    }
  }

  async #history() {
    try {
      this.samples.begin(await get("/history"));
    } catch {
      // It begins with the first tick.
    }
    if (!this.closed) this.#draw();
  }

  #draw() {
    const samples = this.samples.of(HOUR);
    const end = samples.length ? samples[samples.length - 1].time : Date.now();
    for (const chart of this.charts) chart.show(samples, HOUR, end);
  }

  tick({ time, totals, connections, memory_bytes: memory }) {
    this.samples.add({ time, ...totals });
    setText(this.tiles.items, compact(totals.items));
    setText(this.tiles.queues, compact(totals.queues));
    setText(this.tiles.connections, compact(connections));
    if (memory !== null) setText(this.tiles.memory, bytes(memory));
    if (this.started) setText(this.tiles.uptime, duration(time - this.started));
    this.ticks = (this.ticks || 0) + 1;
    // Ages are in the history alone.
    if (this.ticks % 30 === 0) this.#history();
    if (this.ticks % 5 === 1) this.#draw();
  }

  health({ reasons }) {
    fill(
      this.trouble,
      reasons.map(({ code, text, since }) =>
        h(
          `p.pill.wide.${code === "status" ? "warn" : "bad"}`,
          {},
          h("span.dot", { "aria-hidden": "true" }),
          text,
          since === null ? "" : `, since ${moment(since)}`,
        ),
      ),
    );
  }

  status(status) {
    this.#statuses(status);
  }

  #show(server) {
    this.started = server.started;
    setText(this.tiles.uptime, duration(server.uptime_ms));
    setText(this.tiles.memory, server.memory_bytes === null ? "–" : bytes(server.memory_bytes));
    setText(this.tiles.disk, server.disk === null ? "–" : bytes(server.disk.free));
    setAttribute(
      this.tiles.disk,
      "title",
      server.disk === null ? null : `${percent(server.disk.free / server.disk.total)} of ${bytes(server.disk.total)}`,
    );
    setText(this.tiles.connections, compact(server.connections.current));
    setText(this.tiles.queues, compact(server.totals.queues));
    setText(this.tiles.items, compact(server.totals.items));
    this.#statuses(server.status);
    this.health(server.health);
    fill(
      this.about,
      row("Version", `${server.version}, ${server.compiled ? "compiled" : "not compiled"}`),
      row("Python", server.python),
      row("Twisted", server.twisted),
      row("Process", String(server.pid)),
      row("Started", moment(server.started)),
      row("Its clock says", moment(server.time)),
      row("Disk", server.disk === null ? "unknown" : `${bytes(server.disk.free)} of ${bytes(server.disk.total)} free`),
      row("HTTP connections", count(server.connections.http)),
      row(
        "Listens at",
        h(
          "span.lines",
          {},
          server.listeners.map((listener) => h("code.mono", {}, listener)),
        ),
      ),
    );
    const { counters } = server;
    const names = [
      ...Object.keys(COUNTERS).filter((name) => name in counters),
      ...Object.keys(counters).filter((name) => !(name in COUNTERS)),
    ];
    fill(
      this.counters,
      names.map((name) =>
        row(COUNTERS[name] || name, name.startsWith("bytes") ? bytes(counters[name]) : count(counters[name])),
      ),
    );
    fill(
      this.settings,
      Object.entries(server.settings).map(([name, value]) =>
        h("div", {}, h("dt.mono", {}, name), h("dd.mono", {}, value)),
      ),
    );
  }

  // Acting

  #statuses(now) {
    if (now === this.now && this.switch.firstChild) return;
    this.now = now;
    const allowed = mayServer(this.app.session);
    const focused = this.switch.contains(document.activeElement);
    fill(
      this.switch,
      Object.entries(STATUSES).map(([status, [label, text]]) =>
        h(
          `button.status${status === now ? ".now" : ""}`,
          {
            type: "button",
            "aria-pressed": String(status === now),
            disabled: !allowed && status !== now,
            onclick: () => this.#change(status),
          },
          h("strong", {}, label),
          h("span", {}, text),
        ),
      ),
    );
    if (focused) this.switch.querySelector("[aria-pressed=true]")?.focus();
  }

  async #change(status) {
    if (status === this.now || !mayServer(this.app.session)) return;
    const [label, , effect] = STATUSES[status];
    const done = await ask(`Set the status to ${label.toLowerCase()}?`, [h("p", {}, effect)], {
      action: `Set it to ${label.toLowerCase()}`,
      danger: status !== "up",
      submit: () => change("PUT", "/status", { status }),
    });
    if (!done) return;
    note(`The server is ${label.toLowerCase()}.`);
    this.#statuses(done.status);
    this.#refresh();
  }

  async #reload() {
    const done = await ask(
      "Read the settings of queues again?",
      [
        h(
          "p",
          {},
          "The server reads its configuration file. If all of it is right, settings of queues and aliases apply. " +
            "If anything is wrong, nothing changes, and you see what it is.",
        ),
      ],
      { action: "Read it again", submit: () => change("POST", "/reload") },
    );
    if (done) note(`The settings of ${plural(this.app.tick?.totals.queues || 0, "queue")} are read again.`);
  }
}
