// Settings of a queue: what is in force, and why.

import { fill, h } from "./dom.js";

const WHY = {
  "built-in": () => "default",
  defaults: () => ["table ", h("code", {}, "[defaults]")],
  parent: (key, link) => ["from the parent ", link(key)],
  pattern: (key) => ["pattern ", h("code", {}, `[queues."${key}"]`)],
  queue: (key) => ["its own table ", h("code", {}, `[queues.${/^[A-Za-z0-9_-]+$/.test(key) ? key : `"${key}"`}]`)],
};

/**
 * Show settings, those that somebody set first.
 * @param {function(string): Element} link a link to a queue.
 */
export function settingsTable(place, settings, link) {
  const shown = JSON.stringify(settings);
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  const set = settings.filter(({ source }) => source !== "built-in");
  const rest = settings.filter(({ source }) => source === "built-in");
  const row = ({ name, value, source, key }) =>
    h(
      `tr${source === "built-in" ? ".muted" : ""}`,
      {},
      h("th.mono", { scope: "row" }, name),
      h("td.mono", {}, value),
      h("td.why", {}, WHY[source](key, link)),
    );
  fill(
    place,
    h(
      "div.scroll-x",
      { role: "region", "aria-label": "Settings in force", tabindex: 0 },
      h(
        "table.settings-table",
        {},
        h("caption.sr-only", {}, "Settings in force, and where each comes from"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Setting", "Value", "Why"].map((label) => h("th", { scope: "col" }, label)),
          ),
        ),
        h("tbody", {}, [...set, ...rest].map(row)),
      ),
    ),
  );
}
