// Who is connected.

import { change, get, mayServer } from "./api.js";
import { ask, complain, note } from "./dialog.js";
import { debounced, h, setAttribute, setText } from "./dom.js";
import { bytes, duration, plural } from "./format.js";
import { VirtualTable, textCell } from "./table.js";

const EVERY = 2_000;

function openText({ open, open_reads: number }) {
  if (!number) return "–";
  const queues = Object.entries(open).map(([queue, items]) => (items === 1 ? queue : `${queue} (${items})`));
  return queues.join(", ") || String(number);
}

function listCell(text, kind) {
  return () => {
    const element = h(`td${kind}`);
    return {
      element,
      show(row) {
        const shown = text(row);
        setText(element, shown);
        setAttribute(element, "title", shown.length > 16 ? shown : null);
        element.classList.toggle("zero", shown === "–");
      },
    };
  };
}

/** What narrow screens have in the place of columns. */
function inShort({ user, waits_for: queues, open_reads: number }) {
  const parts = [user, queues.length && `waits for ${queues.join(", ")}`, number && `${number} open`];
  return parts.filter(Boolean).join(" · ");
}

/** The page of the clients. */
export class Clients {
  constructor(app, { parameters }) {
    this.app = app;
    this.title = "Clients";
    this.filter = parameters.get("filter") || "";
    this.search = h("input", {
      type: "search",
      placeholder: "Filter by address or user",
      value: this.filter,
      "aria-label": "Filter clients",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: 250,
      oninput: debounced(() => this.#typed(), 150),
    });
    this.found = h("span.muted.found", { "aria-live": "polite" });
    this.table = new VirtualTable(
      "Clients",
      this.#columns(),
      (offset, limit, signal) => this.#load(offset, limit, signal),
      {
        onload: (answer) => this.#loaded(answer),
      },
    );
    this.none = h("div.empty", { hidden: true });
    this.list = h("div.panel.list", {}, this.table.element, this.none);
    this.element = h(
      "div",
      {},
      h("div.heading", {}, h("h1", {}, "Clients")),
      h("div.toolbar", {}, h("div.search", {}, this.search, h("kbd", { "aria-hidden": "true" }, "/")), this.found),
      this.list,
    );
    if (mayServer(app.session)) {
      this.table.follow(EVERY, (error) => this.#failed(error));
    } else {
      this.#say("You may not see the clients", "Only those who may administrate all queues see who is connected.");
    }
  }

  close() {
    this.table.close();
  }

  resume() {
    if (mayServer(this.app.session)) this.#refresh();
  }

  #columns() {
    return [
      {
        label: "Address",
        kind: "k-address",
        make: () => {
          const address = h("span");
          const more = h("span.sub");
          return {
            element: h("th.name.k-address", { scope: "row" }, address, more),
            show: (row) => {
              setText(address, row.tls ? `${row.address} (TLS)` : row.address);
              setText(more, inShort(row));
            },
          };
        },
      },
      { label: "User", kind: "k-user", make: listCell(({ user }) => user || "–", ".k-user") },
      { label: "Protocol", kind: "k-protocol", make: textCell(({ protocol }) => protocol, ".k-protocol") },
      {
        label: "Connected",
        number: true,
        kind: "k-time",
        make: () => {
          const element = h("td.number.k-time");
          return { element, show: ({ since }) => setText(element, duration(Date.now() - since)) };
        },
      },
      {
        label: "Silent",
        number: true,
        kind: "k-time",
        make: textCell(({ idle_ms: idle }) => (idle === null ? "–" : duration(idle)), ".number.k-time"),
      },
      {
        label: "Waits for",
        kind: "k-queues",
        make: listCell(({ waits_for: queues }) => queues.join(", ") || "–", ".k-queues.mono"),
      },
      { label: "Open", kind: "k-queues", make: listCell(openText, ".k-queues.mono") },
      {
        label: "Held",
        number: true,
        kind: "k-held",
        make: textCell(({ bytes_held: held }) => (held ? bytes(held) : "0"), ".number.k-held"),
      },
      {
        label: h("span.sr-only", {}, "Action"),
        kind: "k-act",
        make: () => {
          let client = null;
          const button = h("button.button.small", { type: "button", onclick: () => this.#cut(client) }, "Cut off…");
          return {
            element: h("td.k-act", {}, button),
            show: (row) => {
              client = row;
              setAttribute(button, "aria-label", `Cut off ${row.address}…`);
            },
          };
        },
      },
    ];
  }

  async #load(offset, limit, signal) {
    const answer = await get("/clients", { filter: this.filter, offset, limit }, signal);
    return { ...answer, rows: answer.clients };
  }

  #refresh() {
    this.table.reload().catch((error) => this.#failed(error));
  }

  #failed(error) {
    if (error.status && error.status !== 401) complain(error);
  }

  #loaded({ total }) {
    setText(this.found, plural(total, "client"));
    this.table.element.hidden = !total;
    this.none.hidden = total > 0;
    if (total) return;
    if (this.filter) this.#say("No client matches", "The filter looks for its text in addresses and users.");
    else this.#say("Nobody is connected", "Clients connect to the server's port with any memcache library.");
  }

  #say(title, text) {
    this.table.element.hidden = true;
    this.none.hidden = false;
    this.none.replaceChildren(h("h2", {}, title), h("p", {}, text));
  }

  #typed() {
    const filter = this.search.value.trim();
    if (filter === this.filter) return;
    this.filter = filter;
    history.replaceState(null, "", `#/clients${filter ? `?filter=${encodeURIComponent(filter)}` : ""}`);
    this.table.reload({ anew: true }).catch((error) => this.#failed(error));
  }

  async #cut({ id, address, user, open_reads: open, waits_for: waits }) {
    const done = await ask(
      `Cut off ${address}?`,
      [
        h(
          "p",
          {},
          user ? `It is logged in as ${user}. ` : "",
          "Its connection ends at once. ",
          open ? `${plural(open, "item that it has open goes", "items that it has open go")} back to the queue. ` : "",
          waits.length ? "It no longer waits for an item. " : "",
          "It may connect again.",
        ),
      ],
      { action: "Cut off", danger: true, submit: () => change("DELETE", `/clients/${encodeURIComponent(id)}`) },
    );
    if (!done) return;
    note(done.closed ? `${address} is cut off.` : `${address} had gone already.`);
    this.#refresh();
  }
}
