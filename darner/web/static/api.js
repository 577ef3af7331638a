// The JSON API of the server.

const BASE = "/api/v1";

/** What the server refused, or that it was not reached (then the status is 0). */
export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Told with a `Problem` when a request was refused because nobody is logged in any more. */
export const loggedOut = new EventTarget();

/** The path of a queue, with what is below it. */
export function queuePath(name, below = "") {
  // A browser takes these for directories, however they are spelled, and would ask for something else.
  if (name === "." || name === "..") throw new Problem(0, `A browser cannot address a queue named ${name}.`);
  return `/queues/${encodeURIComponent(name)}${below}`;
}

/** A path with parameters; those that are null, undefined or empty are left out. */
export function url(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

async function send(address, options) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  let text = `${response.status} ${response.statusText}`;
  try {
    const { title, detail } = await response.json();
    text = detail || title || text;
  } catch {
    // No JSON: the status has to do.
  }
  const problem = new Problem(response.status, text.charAt(0).toUpperCase() + text.slice(1));
  if (response.status === 401 && !address.endsWith("/session")) loggedOut.dispatchEvent(new Event("out"));
  throw problem;
}

/** Ask for something; what it answers as a value. */
export async function get(path, parameters, signal) {
  return (await send(url(path, parameters), { signal })).json();
}

/** Ask for bytes. */
export async function getBytes(path, parameters, signal) {
  return new Uint8Array(await (await send(url(path, parameters), { signal })).arrayBuffer());
}

/** Change something; what it answers, or null. */
export async function change(method, path, body) {
  const headers = { "X-Darner-Request": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await send(url(path), {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

/** The bytes of a payload as the API shows them. */
export function payloadBytes({ encoding, data }) {
  if (encoding === "utf-8") return new TextEncoder().encode(data);
  return Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
}

/** Whether a shell pattern, with * ? [a-z] [!a-z], matches a queue name. */
export function matches(pattern, name) {
  const source = pattern.replace(/\[(!?)([^\]]+)\]|[\s\S]/g, (part, not, letters) => {
    if (letters !== undefined) return `[${not ? "^" : ""}${letters.replace(/[\\^[\]]/g, "\\$&")}]`;
    if (part === "*") return ".*";
    if (part === "?") return ".";
    return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  try {
    return new RegExp(`^${source}$`, "s").test(name);
  } catch {
    return false;
  }
}

/**
 * Whether the user of a session has a right to a queue.
 * @param {"read"|"write"|"admin"} right
 */
export function may(session, right, name) {
  if (!session.rights) return !session.login_required;
  return session.rights[right].some((pattern) => matches(pattern, name));
}

/** Whether the user of a session may change the server itself. */
export const mayServer = (session) => (session.rights ? session.rights.server : !session.login_required);
