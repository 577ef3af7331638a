// What a person can do to queues and items: each asks first, and says what it will do.

import { change, get, queuePath } from "./api.js";
import { ask, note } from "./dialog.js";
import { field, h } from "./dom.js";
import { bytes, count, plural } from "./format.js";

const name = (queue) => h("code.mono", {}, queue);

/** Ask for the name of a queue, with those that there are as one types. */
export function queueField(label, value = "", help = null) {
  const list = h("datalist", { id: "queue-names" });
  let asked = null;
  const input = h("input", {
    type: "text",
    name: "target",
    required: true,
    maxlength: 250,
    value,
    list: "queue-names",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "none",
    pattern: "[!-.0-~]+",
    title: "Printable ASCII without / and blanks",
    oninput: async () => {
      const filter = input.value;
      if (filter === asked) return;
      asked = filter;
      try {
        const { queues } = await get("/queues", { filter, limit: 20 });
        if (asked === filter) list.replaceChildren(...queues.map((queue) => h("option", { value: queue.name })));
      } catch {
        // Without suggestions the name is typed.
      }
    },
  });
  return [field(label, input, help), list];
}

const number = (form, field) => {
  const text = String(form.get(field) ?? "").trim();
  return text === "" ? undefined : Number(text);
};

/**
 * Put an item.
 * @param {string|null} queue on which; it is asked for where it is null.
 * @returns {Promise} the queue's name once it is put; undefined where nothing was.
 */
export async function put(app, queue) {
  const target = queue === null ? queueField("Queue", "jobs", "It is made if there is none of this name.") : null;
  const put = await ask(
    queue === null ? "Put an item" : ["Put an item on ", name(queue)],
    [
      target,
      field("Payload", h("textarea", { name: "payload", spellcheck: "false", rows: 6 })),
      h(
        "div.fields",
        {},
        field(
          "Delay in seconds",
          h("input", { type: "number", name: "delay", min: 0, step: "any", inputmode: "decimal" }),
          "Empty: as the queue's settings say",
        ),
        field(
          "Expires after seconds",
          h("input", { type: "number", name: "expiry", min: 1, max: 2592000, inputmode: "numeric" }),
          "Empty: never",
        ),
        field(
          "Flags",
          h("input", { type: "number", name: "flags", min: 0, max: 4294967295, inputmode: "numeric" }),
          "Empty: 0",
        ),
        field(
          "Id",
          h("input", { type: "text", name: "id", maxlength: 250, pattern: "[!-.0-~]+", autocomplete: "off" }),
          "For queues with a dedupe_window",
        ),
      ),
      h("label.check", {}, h("input", { type: "checkbox", name: "sync" }), "Wait until it is on stable storage"),
    ],
    {
      action: "Put",
      submit: async (form) => {
        const on = queue ?? form.get("target").trim();
        const delay = number(form, "delay");
        await change("POST", queuePath(on, "/items"), {
          payload: form.get("payload").replace(/\r\n/g, "\n"),
          flags: number(form, "flags"),
          expiry: number(form, "expiry"),
          delay_ms: delay === undefined ? undefined : Math.round(delay * 1000),
          id: form.get("id") || undefined,
          sync: form.get("sync") ? true : undefined,
        });
        return on;
      },
    },
  );
  if (put === undefined) return undefined;
  note(`The item is on ${put}.`);
  if (queue === null) app.go(`#/queue/${encodeURIComponent(put)}`);
  return put;
}

/** Drop what is in a queue. */
export async function flush({ name: queue, items, delayed, open }) {
  const much = plural(items + delayed, "item");
  const done = await ask(
    ["Drop ", much, " of ", name(queue), "?"],
    [
      h(
        "p",
        {},
        "They are gone for good",
        delayed ? `, the ${plural(delayed, "delayed item")} among them` : "",
        ".",
        open ? ` ${plural(open, "open item stays", "open items stay")} with those who have them.` : "",
      ),
      h("p.muted", {}, "Items that come in until then are dropped too."),
    ],
    { action: `Drop ${much}`, danger: true, submit: () => change("POST", queuePath(queue, "/flush")) },
  );
  if (done) note(`${plural(done.items, "item")} of ${queue} dropped.`);
  return done;
}

/** Delete a queue. */
export async function remove(app, { name: queue, items, delayed, open, waiters }) {
  const held = items + delayed + open;
  const done = await ask(
    ["Delete the queue ", name(queue), "?"],
    [
      h(
        "p",
        {},
        held ? `Its ${plural(held, "item")} are gone for good, open and delayed ones included. ` : "It is empty. ",
        "Its figures are forgotten. The next item that somebody puts on it makes it anew.",
      ),
      waiters
        ? h("p", {}, `${plural(waiters, "waiting client goes", "waiting clients go")} on waiting for its next item.`)
        : null,
    ],
    { action: "Delete the queue", danger: true, submit: () => change("DELETE", queuePath(queue)) },
  );
  if (!done) return;
  note(`The queue ${queue} is deleted.`);
  app.go("#/");
}

/** Move the ready items of a queue to another one. */
export async function requeue({ name: queue, items }) {
  const done = await ask(
    ["Move items of ", name(queue)],
    [
      h(
        "p",
        {},
        `Ready items go to the end of another queue, from the head on, in their order. There are ${count(items)}.`,
      ),
      queueField("To the queue"),
      field("How many", h("input", { type: "number", name: "count", min: 1, inputmode: "numeric" }), "Empty: all"),
    ],
    {
      action: "Move",
      submit: (form) =>
        change("POST", queuePath(queue, "/requeue"), {
          target: form.get("target").trim(),
          count: number(form, "count"),
        }),
    },
  );
  if (done) note(`${plural(done.items, "item")} of ${queue} moved.`);
  return done;
}

// Items

const KINDS = { ready: "ready", open: "open", delayed: "delayed", retrying: "retrying", dead: "dead" };

/** @param {number|null} how how many they are, where that is known. */
function selected({ state, ids, filter, total }) {
  if (ids) return ids.length === 1 ? `1 ${KINDS[state]} item` : `${count(ids.length)} ${KINDS[state]} items`;
  if (filter) return `all ${KINDS[state]} items that the filter selects`;
  return total === 1 ? `the 1 ${KINDS[state]} item` : `all ${count(total)} ${KINDS[state]} items`;
}

const WORDS = {
  contains: (text) => `the payload contains “${text}”`,
  min_age_ms: (ms) => `put at least ${count(ms / 1000)} s ago`,
  max_age_ms: (ms) => `put at most ${count(ms / 1000)} s ago`,
  min_size: (size) => `at least ${bytes(size)}`,
  max_size: (size) => `at most ${bytes(size)}`,
  flags: (flags) => `flags ${flags}`,
};

function explained({ filter, ids, state }) {
  if (ids) return h("p.muted", {}, "Those that are gone by then are left out.");
  const parts = Object.entries(filter || {}).map(([key, value]) => h("li", {}, WORDS[key](value)));
  return [
    parts.length ? [h("p", {}, "The filter:"), h("ul.words", {}, parts)] : null,
    h("p.muted", {}, `What has become ${KINDS[state]} by then is among them.`),
  ];
}

const body = ({ state, ids, filter }, more) => ({ state, ids: ids || undefined, filter: filter || undefined, ...more });

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Delete items.
 * @param {{queue, holder, state, ids, filter, total}} selection which: ids, a filter, or neither for all of a state;
 *     they are in the queue `holder`, which for dead ones is another one than the queue.
 */
export async function deleteItems(selection) {
  const what = selected(selection);
  const done = await ask(
    ["Delete ", what, " of ", name(selection.holder), "?"],
    [
      h(
        "p",
        {},
        selection.state === "open"
          ? "They are gone for good, and whoever has them open cannot give them back."
          : "They are gone for good.",
      ),
      explained(selection),
    ],
    {
      action: `Delete ${what.replace(" that the filter selects", " selected")}`,
      danger: true,
      submit: () => change("POST", queuePath(selection.queue, "/items/delete"), body(selection)),
    },
  );
  if (done) note(`${plural(done.items, "item")} deleted.`);
  return done;
}

/** Move items to another queue, which is asked for. */
export async function moveItems(selection) {
  const done = await ask(
    ["Move ", selected(selection), " of ", name(selection.holder)],
    [queueField("To the end of the queue"), explained(selection)],
    {
      action: "Move",
      submit: (form) =>
        change(
          "POST",
          queuePath(selection.queue, "/items/move"),
          body(selection, { target: form.get("target").trim() }),
        ),
    },
  );
  if (done) note(`${plural(done.items, "item")} moved.`);
  return done;
}

/** Send dead letters back to their queue. */
export async function sendBack(selection) {
  const what = selected(selection).replace(/dead item/, "dead letter");
  const done = await ask(
    ["Send ", what, " back to ", name(selection.queue), "?"],
    [
      h("p", {}, "They leave ", name(selection.holder), " and go to the end of ", name(selection.queue), "."),
      selection.ids
        ? null
        : h("p.muted", {}, "If other queues have the same dead letter queue, their dead letters are among them."),
      explained(selection),
    ],
    {
      action: "Send back",
      submit: () =>
        change("POST", queuePath(selection.queue, "/items/move"), body(selection, { target: selection.queue })),
    },
  );
  if (done) note(`${plural(done.items, "dead letter")} sent back to ${selection.queue}.`);
  return done;
}

const RETURNS = {
  open: ["Give back", "They are taken from those who have them open, and go back to the head of the queue."],
  delayed: ["Make ready", "They can be read now, and do not wait until they are due."],
  retrying: ["Make ready", "They can be read now, and do not wait until their next attempt is due."],
};

/** What `giveBack` is called for items of a state, or undefined where there is no such thing. */
export const returnWord = (state) => RETURNS[state]?.[0];

/** Make open, delayed or retrying items ready. */
export async function giveBack(selection) {
  const [word, effect] = RETURNS[selection.state];
  const what = selected(selection);
  const done = await ask(
    [`${word}: `, what, " of ", name(selection.holder), "?"],
    [h("p", {}, effect), explained(selection)],
    {
      action: word,
      submit: () => change("POST", queuePath(selection.queue, "/items/return"), body(selection)),
    },
  );
  if (done) note(`${capital(plural(done.items, "item"))} ${selection.state === "open" ? "given back" : "made ready"}.`);
  return done;
}
