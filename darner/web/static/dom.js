// Building and changing the document.  All text goes in as text nodes: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} what a tag with classes, such as "td.number.muted"; of SVG where it begins with "svg:".
 * @param {Object} [attributes] attributes as text; a function is a listener of the event "on..." names; `true` sets an
 *     attribute without a value; null, undefined and false leave one out.
 * @param {...(Node|string|number|null|Array)} children what is in it; null is nothing.
 */
export function h(what, attributes, ...children) {
  const svg = what.startsWith("svg:");
  const [tag, ...classes] = (svg ? what.slice(4) : what).split(".");
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

/** Put these children in the place of those that an element has. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Change an element's text, where it is another one: what did not change is not laid out again. */
export function setText(element, text) {
  const wanted = String(text);
  if (
    element.firstChild &&
    element.firstChild === element.lastChild &&
    element.firstChild.nodeType === Node.TEXT_NODE
  ) {
    if (element.firstChild.data !== wanted) element.firstChild.data = wanted;
  } else if (element.textContent !== wanted || element.firstElementChild) {
    element.textContent = wanted;
  }
}

/** Set an attribute, or take it away where the value is null or false. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

const announcer = () => document.getElementById("announcements");

/** Have screen readers say something. */
export function announce(text) {
  const element = announcer();
  if (!element) return;
  // The same text twice is said twice only if the element was empty in between.
  element.textContent = "";
  setTimeout(() => {
    element.textContent = text;
  }, 50);
}

/** Call a function once there was a pause of so many milliseconds since it was last asked for. */
export function debounced(call, pause) {
  let timer = 0;
  return (...more) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...more), pause);
  };
}

let serial = 0;

/** A new id for an element. */
export const newId = (word) => `${word}-${++serial}`;

/** The buttons of a group of which one is pressed. */
export function segments(label, choices, chosen, choose) {
  const buttons = choices.map(([value, text]) =>
    h(
      "button",
      {
        type: "button",
        "aria-pressed": String(value === chosen),
        onclick: (event) => {
          for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
          choose(value);
        },
      },
      text,
    ),
  );
  return h("div.segments", { role: "group", "aria-label": label }, buttons);
}

/** A field of a form: an input under its label, and what helps to fill it in. */
export function field(label, input, help = null) {
  const id = newId("field");
  input.id = id;
  if (help) input.setAttribute("aria-describedby", `${id}-help`);
  return h(
    "div.field",
    {},
    h("label.label", { for: id }, label),
    input,
    help && h("span.help", { id: `${id}-help` }, help),
  );
}
