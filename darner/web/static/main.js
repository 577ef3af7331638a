// The frame: who is asking, which page is shown, and whether there is a connection.

import { change, get, loggedOut } from "./api.js";
import { complain, note } from "./dialog.js";
import { announce, fill, h, setAttribute, setText } from "./dom.js";
import { Events } from "./events.js";
import { clock } from "./format.js";
import { showKeys } from "./keys.js";
import { LogIn } from "./login.js";
import { Overview } from "./overview.js";

const byId = (id) => document.getElementById(id);
const main = byId("main");

/**
 * What all views share.
 *
 * @property session who is asking and what they may do.
 * @property health what the server said last of its health, or null.
 * @property tick its last figures, or null.
 */
const app = { session: null, health: null, tick: null, events: new Events(), view: null, go };

// Views that are not the first are loaded when they are asked for.
const PAGES = {
  queues: async () => Overview,
  queue: async () => (await import("./queue.js")).QueuePage,
  clients: async () => (await import("./clients.js")).Clients,
  server: async () => (await import("./server.js")).Server,
};

/** Where the address says to go: "#/queue/NAME?tab=open" as page, name and parameters. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page, name] = path.split("/");
  const parameters = new URLSearchParams(query || "");
  if (page === "queue" && name) {
    try {
      return { page, name: decodeURIComponent(name), parameters };
    } catch {
      return { page: "queues", parameters };
    }
  }
  return { page: page in PAGES && page !== "queue" ? page : "queues", parameters };
}

function go(hash) {
  location.hash = hash;
}

let routes = 0;

async function route(moved = true) {
  if (!app.session?.authenticated) return;
  const route = ++routes;
  const to = place();
  let View;
  try {
    View = await PAGES[to.page]();
  } catch {
    complain(new Error("The page could not be loaded. Is the server there?"));
    return;
  }
  if (route !== routes) return;
  app.view?.close();
  app.view = new View(app, to);
  fill(main, app.view.element);
  for (const link of document.querySelectorAll(".top nav a")) {
    const here = link.dataset.page === to.page || (to.page === "queue" && link.dataset.page === "queues");
    setAttribute(link, "aria-current", here ? "page" : null);
  }
  document.title = `${app.view.title} · darner`;
  if (moved) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
    announce(app.view.title);
  }
  const queues = app.view.queues || [];
  if (queues.join(" ") !== app.events.queues.join(" ") || app.events.state === "closed" || !app.events.source) {
    app.events.open(queues);
  } else if (app.tick) {
    app.view.tick?.(app.tick);
  }
}

// Who is asking

function welcome(session) {
  app.session = session;
  setText(byId("user"), session.user || "");
  byId("user").hidden = !session.user;
  byId("log-out").hidden = !(session.user && session.login_required);
  document.body.classList.toggle("logged-out", !session.authenticated);
}

function logIn(text = "") {
  app.view?.close();
  app.view = null;
  routes++;
  app.events.close();
  fill(byId("banners"));
  byId("health").className = "pill unknown";
  welcome({ ...(app.session || {}), user: null, authenticated: false, login_required: true });
  document.title = "Log in · darner";
  const form = new LogIn(text, (session) => {
    welcome(session);
    app.events.state = "connecting";
    route();
  });
  fill(main, form.element);
  form.focus();
}

byId("log-out").addEventListener("click", async () => {
  try {
    await change("DELETE", "/session");
    logIn("You are logged out.");
  } catch (error) {
    complain(error);
  }
});
loggedOut.addEventListener("out", () => {
  if (app.session?.authenticated) logIn("The session is over. Please log in again.");
});

// The connection

let instance = null;
let lostAt = 0;

const banner = (id, kind, ...children) => {
  byId(id)?.remove();
  if (children.length) byId("banners").append(h(`div.banner.${kind}`, { id, role: "alert" }, h("p", {}, children)));
};

function pill(element, kind, text) {
  element.className = `pill ${kind}`;
  setText(element.querySelector(".text"), text);
}

app.events.addEventListener("state", ({ detail: state }) => {
  const words = { live: ["good", "Live"], lost: ["bad", "Connection lost"] };
  const [kind, text] = words[state] || ["unknown", ""];
  pill(byId("connection"), kind, text);
  if (state === "lost") {
    lostAt ||= app.events.last || Date.now();
    const since = app.events.last ? ` What you see is of ${clock(lostAt)}.` : "";
    banner(
      "lost",
      "bad",
      h("strong", {}, "Connection lost. "),
      h("span", {}, `Connecting again…${since}`),
      h("button.button", { type: "button", onclick: () => app.events.open() }, "Try now"),
    );
    lookWhy();
  } else if (state === "live") {
    banner("lost");
    if (lostAt) {
      announce("Connected again.");
      app.view?.resume?.();
    }
    lostAt = 0;
  }
});

/** The browser does not say why events ended: ask whether it is because nobody is logged in. */
async function lookWhy() {
  const before = app.session;
  try {
    const session = await get("/session");
    // Unless that was found out otherwise meanwhile: somebody may be logging in, or have logged in.
    if (!session.authenticated && app.session === before) logIn("The session is over. Please log in again.");
  } catch {
    // The server is away; it is asked again anyway.
  }
}

app.events.addEventListener("hello", ({ detail: session }) => {
  if (instance && session.instance !== instance) {
    const other = app.session.version !== session.version ? ` It is version ${session.version} now.` : "";
    banner(
      "restarted",
      "warn",
      h("strong", {}, `The server was restarted at ${clock(Date.now())}. `),
      h("span", {}, `Counters and rates begin anew, and open reads went back.${other}`),
      other
        ? h("button.button", { type: "button", onclick: () => location.reload() }, "Reload the page")
        : h("button.button", { type: "button", onclick: () => banner("restarted") }, "Dismiss"),
    );
    app.view?.resume?.();
  }
  instance = session.instance;
  welcome(session);
});

app.events.addEventListener("health", ({ detail: health }) => {
  app.health = health;
  const element = byId("health");
  const refused = health.reasons.some(({ code }) => code !== "status");
  pill(
    element,
    health.ok ? "good" : refused ? "bad" : "warn",
    health.ok ? "Healthy" : health.reasons.map(({ text }) => text).join("; "),
  );
  setAttribute(element, "title", health.ok ? null : health.reasons.map(({ text }) => text).join("; "));
  app.view?.health?.(health);
});

app.events.addEventListener("rates", ({ detail: tick }) => {
  app.tick = tick;
  app.view?.tick?.(tick);
});

app.events.addEventListener("status", ({ detail }) => app.view?.status?.(detail.status));

// Theme and keys

function nameTheme() {
  const theme = document.documentElement.dataset.theme;
  const other = theme === "dark" ? "light" : "dark";
  setAttribute(byId("theme"), "aria-label", `Use the ${other} theme`);
  setAttribute(byId("theme"), "title", `Use the ${other} theme`);
}

byId("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  try {
    // Who wants what the system has goes on following the system.
    if (theme === system) localStorage.removeItem("darner-theme");
    else localStorage.setItem("darner-theme", theme);
  } catch {
    // Without storage it is for this visit.
  }
});
new MutationObserver(nameTheme).observe(document.documentElement, {
  attributes: true,
  attributeFilter: ["data-theme"],
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, textarea, select")) return;
  const pages = { q: "#/", c: "#/clients", s: "#/server" };
  if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "?") showKeys();
  else if (pages[event.key] && app.session?.authenticated) go(pages[event.key]);
});

byId("main").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  navigator.clipboard?.writeText(button.dataset.copy).then(() => note("Copied."), complain);
});

window.addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  route();
});

async function begin() {
  nameTheme();
  try {
    const session = await get("/session");
    welcome(session);
    if (session.authenticated) await route(false);
    else logIn();
    // Then the other views, so that they are there when they are asked for.
    for (const load of Object.values(PAGES)) load().catch(() => {});
  } catch (error) {
    fill(
      main,
      h(
        "div.empty",
        {},
        h("h2", {}, "The server cannot be reached"),
        h("p", {}, error.message),
        h("button.button.primary", { type: "button", onclick: () => location.reload() }, "Try again"),
      ),
    );
  }
}

begin();
