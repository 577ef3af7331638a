// One item: what is known of it, and its payload as text, JSON or hexadecimal digits.

import * as actions from "./actions.js";
import { get, getBytes, may, payloadBytes, queuePath, url } from "./api.js";
import { ask } from "./dialog.js";
import { fill, h, setAttribute } from "./dom.js";
import { asHex, asJson, asText, bytes, count, duration, moment } from "./format.js";

/** Up to how many bytes a payload is shown whole; a browser cannot lay out much more at once. */
const WHOLE = 256 * 1024;
const PART = 4096;

/** The beginning of a payload on one line. */
export function preview({ size, preview: shown }) {
  if (!size) return h("span.muted", {}, "empty");
  if (shown.encoding === "utf-8") {
    return h("code", {}, shown.data.replace(/\s+/g, " ").slice(0, 160), shown.truncated ? "…" : "");
  }
  const digits = Array.from(payloadBytes(shown).subarray(0, 32), (byte) => byte.toString(16).padStart(2, "0"));
  return h("code.muted", {}, digits.join(" "), size > 32 ? "…" : "");
}

const VIEWS = [
  ["text", "Text", asText],
  ["json", "JSON", asJson],
  ["hex", "Hex", asHex],
];

/** A payload in the views that it has. */
function payloadView(data, whole) {
  const id = "payload-view";
  const place = h("pre.payload", { tabindex: "0", role: "tabpanel", id });
  const views = VIEWS.map(([key, label, show]) => ({ key, label, text: show(data) }));
  const buttons = views.map(({ key, label, text }) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `payload-${key}`,
        "aria-controls": id,
        disabled: text === null,
        title:
          text === null
            ? key === "json"
              ? whole
                ? "It is not JSON"
                : "Only the whole payload may be JSON"
              : "It is not UTF-8"
            : null,
        onclick: () => choose(key),
        onkeydown: (event) => {
          const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
          if (!by) return;
          const there = buttons.filter((button) => !button.disabled);
          const next = there[(there.indexOf(event.currentTarget) + by + there.length) % there.length];
          next.click();
          next.focus();
        },
      },
      label,
    ),
  );
  function choose(chosen) {
    for (const [at, { key, text }] of views.entries()) {
      setAttribute(buttons[at], "aria-selected", String(key === chosen));
      setAttribute(buttons[at], "tabindex", key === chosen ? "0" : "-1");
      if (key === chosen) {
        fill(place, text || h("span.muted", {}, "The payload is empty."));
        setAttribute(place, "aria-labelledby", buttons[at].id);
      }
    }
  }
  const byWish =
    views.find(({ key, text }) => key === "json" && text !== null && /^\s*[[{]/.test(views[0].text)) ||
    views.find(({ text }) => text !== null);
  choose(byWish.key);
  return [h("div.segments", { role: "tablist", "aria-label": "Show the payload as" }, buttons), place];
}

async function load(queue, { id, state, size, preview: shown }) {
  if (!shown.truncated) return payloadBytes(shown);
  const path = queuePath(queue, `/items/${encodeURIComponent(id)}`);
  if (size <= WHOLE) return getBytes(`${path}/payload`, { state });
  return payloadBytes((await get(path, { state, preview: PART })).preview);
}

function facts(item) {
  const { opened } = item;
  const row = (label, value) => (value === null ? null : h("div", {}, h("dt", {}, label), h("dd", {}, value)));
  return h(
    "dl.facts.columns",
    {},
    row("State", item.state),
    row("Put", `${moment(item.time)}, ${duration(item.age_ms)} ago`),
    row("Size", item.size < 1024 ? bytes(item.size) : `${bytes(item.size)}, ${count(item.size)} B`),
    row("Expires", item.expires === null ? "never" : moment(item.expires)),
    row("Flags", String(item.flags)),
    row("Attempts", item.attempts || item.state === "retrying" ? count(item.attempts) : null),
    row("Due", item.due === null ? null : moment(item.due)),
    row("Open by", opened ? [opened.user, opened.address].filter(Boolean).join(" at ") || `the ${opened.by}` : null),
    row("Open since", opened ? moment(opened.since) : null),
  );
}

/**
 * Show an item.
 * @param {string} queue whose page shows it; `holder` is the queue that has it.
 * @returns {Promise<boolean>} whether something was done to it.
 */
export async function showItem(app, queue, holder, item) {
  const selection = { queue, holder, state: item.state, ids: [item.id], filter: null, total: 1 };
  const path = queuePath(queue, `/items/${encodeURIComponent(item.id)}`);
  const payload = h("div.payload-place", {}, h("p.muted", {}, "Loading…"));
  let changed = false;
  const act = (text, call, danger = false) =>
    h(
      `button.button${danger ? ".danger-quiet" : ""}`,
      {
        type: "button",
        onclick: async (event) => {
          if (!(await call(selection))) return;
          changed = true;
          event.target.closest("dialog")?.close();
        },
      },
      text,
    );
  const returned = actions.returnWord(item.state);
  const buttons = may(app.session, "admin", queue)
    ? [
        item.state === "dead" ? act("Send back…", actions.sendBack) : null,
        returned ? act(`${returned}…`, actions.giveBack) : null,
        act("Move…", actions.moveItems),
        act("Delete…", actions.deleteItems, true),
      ]
    : [];
  const closed = ask(
    ["Item ", h("code.mono", {}, item.id), " of ", h("code.mono", {}, holder)],
    [facts(item), payload],
    {
      wide: true,
      more: [h("a.button", { href: url(`${path}/payload`, { state: item.state }), download: "" }, "Download"), buttons],
    },
  );
  try {
    const data = await load(queue, item);
    const whole = data.length === item.size;
    fill(
      payload,
      payloadView(data, whole),
      whole
        ? null
        : h("p.muted", {}, `The first ${bytes(data.length)} of ${bytes(item.size)}. Download it to see all.`),
    );
  } catch (error) {
    fill(
      payload,
      h(
        "p.problem",
        { role: "alert" },
        error.status === 404 ? "The item is gone: somebody took it, or it expired." : error.message,
      ),
    );
  }
  await closed;
  return changed;
}
