// The keys of the page.

import { ask } from "./dialog.js";
import { h } from "./dom.js";

const KEYS = [
  ["/", "Filter"],
  ["Esc", "Clear the filter; close a dialog"],
  ["↑ ↓", "Go through the rows of a table"],
  ["Enter", "Open the row"],
  ["← →", "Read a chart point by point, once it is focused"],
  ["q", "Queues"],
  ["c", "Clients"],
  ["s", "Server"],
  ["?", "This list"],
];

/** Show which keys do what. */
export function showKeys() {
  ask(
    "Keys",
    h(
      "dl.keys",
      {},
      KEYS.map(([keys, text]) =>
        h(
          "div",
          {},
          h(
            "dt",
            {},
            keys.split(" ").map((key) => h("kbd", {}, key)),
          ),
          h("dd", {}, text),
        ),
      ),
    ),
  );
}
