// What selects items of a queue.

import { debounced, h, newId, setAttribute } from "./dom.js";

const MORE = [
  ["min_age_ms", "Older than, s", 1000],
  ["max_age_ms", "Younger than, s", 1000],
  ["min_size", "At least, bytes", 1],
  ["max_size", "At most, bytes", 1],
  ["flags", "Flags", 1],
];

/** The fields that select items. */
export class ItemFilter {
  /** @param {function()} changed called when something else is selected. */
  constructor(changed) {
    this.contains = h("input", {
      type: "search",
      placeholder: "Payload contains…",
      "aria-label": "Payload contains",
      maxlength: 250,
      autocomplete: "off",
      spellcheck: "false",
      oninput: debounced(() => changed(), 250),
    });
    this.from = h("input", {
      type: "text",
      placeholder: "From id",
      "aria-label": "Begin at the item with this id",
      pattern: "[0-9]+(-[0-9]+)?",
      maxlength: 40,
      autocomplete: "off",
      oninput: debounced(() => changed(), 250),
    });
    this.fields = MORE.map(([key, label]) =>
      h(
        "label",
        {},
        h("span", {}, label),
        h("input", {
          type: "number",
          min: 0,
          name: key,
          inputmode: "numeric",
          oninput: debounced(() => changed(), 250),
        }),
      ),
    );
    this.more = h("div.more", { hidden: true, id: newId("more") }, this.fields);
    this.toggle = h(
      "button.quiet",
      {
        type: "button",
        "aria-expanded": "false",
        "aria-controls": this.more.id,
        onclick: () => {
          this.more.hidden = !this.more.hidden;
          setAttribute(this.toggle, "aria-expanded", String(!this.more.hidden));
        },
      },
      "More filters",
    );
    this.element = h("div.filters", {}, this.contains, this.from, this.toggle, this.more);
  }

  /** The id of the item from which on they are shown; empty for the first. */
  get first() {
    return this.from.checkValidity() ? this.from.value : "";
  }

  /** The filter as the API has it; null where nothing is filtered. */
  get value() {
    const filter = {};
    if (this.contains.value) filter.contains = this.contains.value;
    for (const [at, [key, , factor]] of MORE.entries()) {
      const input = this.fields[at].querySelector("input");
      if (input.value !== "" && input.checkValidity()) filter[key] = Math.round(Number(input.value) * factor);
    }
    return Object.keys(filter).length ? filter : null;
  }
}
