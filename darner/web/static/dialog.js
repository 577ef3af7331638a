// Questions in front of the page, and short notes at its edge.

import { announce, fill, h, newId } from "./dom.js";

/**
 * Open a dialog with a form.
 *
 * @param {string} title
 * @param {Array} body what is in it.
 * @param {{action?: string, danger?: boolean, wide?: boolean, submit?: function(FormData): Promise, more?: Array}}
 *     options the name of the button that does it, whether it destroys, what it does, and further buttons.  Without a
 *     name there is a button "Close" in its place.
 * @returns {Promise<*>} what `submit` gave, or undefined where the dialog was dismissed.
 */
export function ask(title, body, { action, danger, wide, submit, more } = {}) {
  const id = newId("dialog");
  const before = document.activeElement;
  const problem = h("p.problem", { role: "alert" });
  const cancel = h("button.button", { type: "button", onclick: () => dialog.close() }, action ? "Cancel" : "Close");
  const go = action && h(`button.button.${danger ? "danger" : "primary"}`, { type: "submit" }, action);
  let result;
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        if (!action || go.disabled) return;
        go.disabled = true;
        fill(problem);
        try {
          result = submit ? await submit(new FormData(form)) : true;
          if (result === undefined) result = true;
          dialog.close();
        } catch (error) {
          fill(problem, error.message || String(error));
          go.disabled = false;
        }
      },
    },
    h("div.body", {}, body, problem),
    h("div.actions", {}, more && h("div.more", {}, more), cancel, go),
  );
  const dialog = h(
    `dialog${wide ? ".wide" : ""}`,
    {
      "aria-labelledby": id,
      onclick: (event) => {
        if (event.target === dialog) dialog.close();
      },
    },
    h("h2", { id }, title),
    form,
  );
  document.body.append(dialog);
  dialog.showModal();
  // What is written first; and where something is destroyed, not the button that does it.
  const first = form.querySelector("[autofocus], input:not([type=hidden]), textarea, select");
  (first || (danger || !go ? cancel : go)).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      // What had the focus may have been made anew meanwhile.
      const back = before && (before.isConnected ? before : document.getElementById(before.id));
      back?.focus();
      resolve(result);
    });
  });
}

/** Say for some seconds that something was done, or that it failed. */
export function note(text, failed = false) {
  const place = document.getElementById("notes");
  const element = h(
    `div.note${failed ? ".bad" : ""}`,
    {},
    h("span", {}, text),
    h("button.quiet", { type: "button", "aria-label": "Dismiss", onclick: () => element.remove() }, "×"),
  );
  place.append(element);
  while (place.children.length > 3) place.firstElementChild.remove();
  announce(text);
  setTimeout(() => element.remove(), failed ? 15_000 : 6_000);
}

/** Note a failure. */
export const complain = (error) => note(error.message || String(error), true);
