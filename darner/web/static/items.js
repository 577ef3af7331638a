// The items of a queue, in tabs by their state.

import * as actions from "./actions.js";
import { get, may, queuePath } from "./api.js";
import { complain } from "./dialog.js";
import { announce, fill, h, newId, setAttribute, setText } from "./dom.js";
import { compact, count } from "./format.js";
import { preview, showItem } from "./item.js";
import { ItemFilter } from "./item_filter.js";
import { STATES, columns } from "./item_states.js";

const PAGE = 25;
const EVERY = 3_000;

/** How many items of a state a queue's figures say that there are. */
const known = (queue, state) => (state === "ready" ? Math.max(0, queue.items - queue.retrying) : queue[state]);

/** The panel of a queue's items. */
export class Items {
  constructor(app, page, parameters) {
    this.app = app;
    this.page = page;
    this.state = STATES.some(([state]) => state === parameters.get("items")) ? parameters.get("items") : "ready";
    this.before = [];
    this.after = null;
    this.selection = new Set();
    this.answer = null;
    const panel = newId("items");
    this.tabs = STATES.map(([state, label]) => {
      const number = h("span.number", {}, "");
      const button = h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `${panel}-${state}`,
          "aria-controls": panel,
          "aria-selected": "false",
          onclick: () => this.#choose(state),
        },
        label,
        number,
      );
      return { state, button, number };
    });
    const tabs = h(
      "div.tabs",
      { role: "tablist", "aria-label": "State of the items", onkeydown: (event) => this.#key(event) },
      this.tabs.map(({ button }) => button),
    );
    this.filter = new ItemFilter(() => this.#anew());
    this.bulk = h("div.end");
    this.place = h("div.place", { role: "tabpanel", id: panel, tabindex: "-1" });
    this.pager = h("footer.pager");
    this.element = h(
      "section.panel.browse",
      { "aria-label": "Items" },
      h("header", {}, h("h2", {}, "Items"), tabs, this.bulk),
      this.filter.element,
      this.place,
      this.pager,
    );
    this.#mark();
    this.timer = setInterval(() => this.#follow(), EVERY);
  }

  close() {
    clearInterval(this.timer);
    this.closed = true;
    this.loading?.abort();
  }

  /** The queue is known: show its items. */
  begin() {
    this.refresh();
  }

  /** Show how many items each tab has. */
  counts(queue) {
    for (const { state, number } of this.tabs) {
      setText(number, state === "dead" && queue.dead_letter_queue === null ? "" : compact(known(queue, state)));
    }
  }

  #mark() {
    for (const { state, button } of this.tabs) {
      const chosen = state === this.state;
      setAttribute(button, "aria-selected", String(chosen));
      setAttribute(button, "tabindex", chosen ? "0" : "-1");
      if (chosen) setAttribute(this.place, "aria-labelledby", button.id);
    }
  }

  #choose(state) {
    this.state = state;
    this.#mark();
    const name = encodeURIComponent(this.page.name);
    history.replaceState(null, "", `#/queue/${name}${state === "ready" ? "" : `?items=${state}`}`);
    this.#anew();
  }

  #key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const at = STATES.findIndex(([state]) => state === this.state);
    const next = (at + by + STATES.length) % STATES.length;
    this.#choose(STATES[next][0]);
    this.tabs[next].button.focus();
  }

  #anew() {
    this.before = [];
    this.after = null;
    this.selection.clear();
    this.refresh();
  }

  /** Look anew, now and then, while nobody is at work on what is shown. */
  #follow() {
    const busy =
      this.before.length ||
      this.after ||
      this.selection.size ||
      document.querySelector("dialog[open]") ||
      this.place.contains(document.activeElement);
    if (!busy && !document.hidden && this.page.queue && this.app.events.state === "live") this.refresh();
  }

  /** Ask for what is shown. */
  async refresh() {
    if (!this.page.queue || this.closed) return;
    if (!may(this.app.session, "read", this.page.name)) {
      fill(this.place, h("div.empty", {}, h("p", {}, "You may not read the items of this queue.")));
      return;
    }
    this.loading?.abort();
    const abort = new AbortController();
    this.loading = abort;
    try {
      const answer = await get(
        queuePath(this.page.name, "/items"),
        {
          state: this.state,
          after: this.after || this.filter.first,
          limit: PAGE,
          preview: 160,
          ...this.filter.value,
        },
        abort.signal,
      );
      if (!this.closed && !abort.signal.aborted) this.#show(answer);
    } catch (error) {
      if (this.closed || error.name === "AbortError" || error.status === 401 || !error.status) return;
      if (error.status !== 404) complain(error);
      // A dead letter queue is made with the first dead letter.
      else if (this.state === "dead")
        this.#show({ queue: this.page.queue.dead_letter_queue, items: [], total: 0, next: null });
    }
  }

  // What is shown

  #show(answer) {
    this.answer = answer;
    const focused = this.place.contains(document.activeElement) ? document.activeElement.id : "";
    const there = new Set(answer.items.map(({ id }) => id));
    for (const id of this.selection) if (!there.has(id)) this.selection.delete(id);
    if (answer.items.length) fill(this.place, h("div.scroll-x", {}, this.#table(answer)));
    else fill(this.place, this.#empty(answer));
    // Whoever is at an item stays there.
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    const { before } = this;
    fill(
      this.pager,
      h("span.muted", { "aria-live": "polite" }, this.#told(answer)),
      h(
        "span.end",
        {},
        h(
          "button.button",
          { type: "button", disabled: !before.length, onclick: () => this.#turn(before[before.length - 1], -1) },
          "Previous",
        ),
        h(
          "button.button",
          { type: "button", disabled: answer.next === null, onclick: () => this.#turn(answer.next, 1) },
          "Next",
        ),
      ),
    );
    this.#offer();
  }

  #told({ items, total }) {
    if (!items.length) return "";
    const where = this.before.length ? `page ${this.before.length + 1}` : "the first";
    const filtered = this.filter.value ? " that match" : "";
    return `${count(items.length)} items${filtered}, ${where}; ${count(total)} are ${this.state} in all`;
  }

  #turn(to, by) {
    if (by > 0) this.before.push(this.after);
    else this.before.pop();
    this.after = to;
    this.selection.clear();
    this.refresh().then(() => announce(`Page ${this.before.length + 1}`));
  }

  #empty({ next, total }) {
    const [, , title, text] = STATES.find(([state]) => state === this.state);
    if (this.filter.value && (total || next !== null)) {
      return h(
        "div.empty",
        {},
        h("h2", {}, "No item matches"),
        h(
          "p",
          {},
          next === null
            ? "Change the filter to see others."
            : "None of those looked at so far. There are more: go on with Next.",
        ),
      );
    }
    const never = this.state === "dead" && this.page.queue.dead_letter_queue === null;
    const [, example] = never
      ? [0, `[queues.${this.#key_of()}]\nmax_attempts = 5\ndead_letter_queue = "dead_letters"`]
      : [];
    return h(
      "div.empty",
      {},
      h("h2", {}, never ? "This queue has no dead letter queue" : title),
      h("p", {}, text),
      example ? h("code.command", { tabindex: 0 }, example) : null,
      this.state === "ready" && may(this.app.session, "write", this.page.name)
        ? h(
            "button.button",
            {
              type: "button",
              onclick: async () => {
                if ((await actions.put(this.app, this.page.name)) !== undefined) this.page.changed();
              },
            },
            "Put an item…",
          )
        : null,
    );
  }

  #key_of() {
    const { name } = this.page;
    return /^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name);
  }

  #table({ items }) {
    const shown = columns(this.state, items[0].time + items[0].age_ms);
    const all = h("input", {
      type: "checkbox",
      id: "pick-all",
      "aria-label": "Select all of this page",
      onchange: () => {
        for (const { id } of items) this.selection[all.checked ? "add" : "delete"](id);
        for (const box of this.boxes) box.checked = all.checked;
        this.#offer();
      },
    });
    this.all = all;
    this.boxes = [];
    const rows = items.map((item) => {
      const box = h("input", {
        type: "checkbox",
        id: `pick-${item.id}`,
        "aria-label": `Select item ${item.id}`,
        onchange: () => {
          this.selection[box.checked ? "add" : "delete"](item.id);
          this.#offer();
        },
      });
      box.checked = this.selection.has(item.id);
      this.boxes.push(box);
      return h(
        "tr",
        {
          onclick: (event) => {
            if (!event.target.closest("input, button, label")) this.#open(item);
          },
        },
        h("td.pick", {}, h("label.hit", {}, box)),
        h(
          "th.id",
          { scope: "row" },
          h("button.link", { type: "button", id: `item-${item.id}`, onclick: () => this.#open(item) }, item.id),
        ),
        shown.map(([, text, kind]) => h(`td${kind ? `.${kind}` : ""}`, {}, text(item))),
        h("td.preview", {}, preview(item)),
      );
    });
    return h(
      "table.items-table",
      {},
      h("caption.sr-only", {}, `${this.state} items of ${this.page.name}`),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td.pick", {}, h("label.hit", {}, all)),
          h("th", { scope: "col" }, "Id"),
          shown.map(([label, , kind]) => h(`th${kind ? `.${kind}` : ""}`, { scope: "col" }, label)),
          h("th.preview", { scope: "col" }, "Payload"),
        ),
      ),
      h("tbody.clickable", {}, rows),
    );
  }

  async #open(item) {
    const changed = await showItem(this.app, this.page.name, this.answer.queue, { ...item, state: this.state });
    if (changed) this.page.changed();
  }

  // What can be done with what is selected, or with all

  #offer() {
    const picked = this.selection.size;
    const here = this.boxes?.length || 0;
    if (this.all) {
      this.all.checked = here > 0 && picked === here;
      this.all.indeterminate = picked > 0 && picked < here;
    }
    const admin = may(this.app.session, "admin", this.page.name);
    if (!admin || !this.answer?.items.length) {
      fill(this.bulk);
      return;
    }
    const filter = this.filter.value;
    const which = picked ? count(picked) : filter ? "all that match" : "all";
    const button = (word, call, danger = false) =>
      h(
        `button.button${danger ? ".danger-quiet" : ""}`,
        {
          type: "button",
          onclick: async () => {
            const done = await call({
              queue: this.page.name,
              holder: this.answer.queue,
              state: this.state,
              total: this.answer.total,
              ids: picked ? [...this.selection] : null,
              filter: picked ? null : filter,
            });
            if (!done) return;
            this.selection.clear();
            this.page.changed();
          },
        },
        `${word} ${which}…`,
      );
    const returned = actions.returnWord(this.state);
    fill(
      this.bulk,
      this.state === "dead" ? button("Send back", actions.sendBack) : null,
      returned ? button(returned, actions.giveBack) : null,
      button("Move", actions.moveItems),
      button("Delete", actions.deleteItems, true),
    );
  }
}
