// The server's events: figures each second, and whether there is a connection at all.

import { url } from "./api.js";

const SILENCE = 6_000;
const PAUSES = [500, 1_000, 2_000, 4_000];

/**
 * A connection to the server's events that is made again whenever it ends.
 *
 * Events: "hello", "rates", "status", "health" with what the server sent as `detail`; "state", with "live", "lost" or
 * "closed".
 */
export class Events extends EventTarget {
  constructor() {
    super();
    this.state = "connecting";
    this.last = 0;
    this.queues = [];
    this.source = null;
    this.failures = 0;
    this.timer = 0;
    this.watch = setInterval(() => this.#look(), 1_000);
    // A tab that slept has a connection that may be dead.
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#look();
    });
    window.addEventListener("online", () => this.open());
    window.addEventListener("offline", () => this.#lost());
  }

  /** Connect, and be told of these queues. */
  open(queues = this.queues) {
    clearTimeout(this.timer);
    this.#drop();
    this.queues = queues;
    this.began = Date.now();
    const source = new EventSource(url("/events", { queues: queues.join(" ") }));
    this.source = source;
    for (const name of ["hello", "rates", "status", "health"]) {
      source.addEventListener(name, (event) => {
        if (source !== this.source) return;
        this.last = Date.now();
        this.failures = 0;
        this.#become("live");
        this.dispatchEvent(new CustomEvent(name, { detail: JSON.parse(event.data) }));
      });
    }
    source.addEventListener("error", () => {
      if (source === this.source) this.#lost();
    });
  }

  /** End it. */
  close() {
    clearTimeout(this.timer);
    this.#drop();
    this.#become("closed");
  }

  #drop() {
    if (this.source) this.source.close();
    this.source = null;
  }

  #look() {
    if (this.source && Date.now() - Math.max(this.last, this.began) > SILENCE) this.#lost();
  }

  #lost() {
    if (this.state === "closed") return;
    this.#drop();
    this.#become("lost");
    clearTimeout(this.timer);
    const pause = PAUSES[Math.min(this.failures++, PAUSES.length - 1)];
    this.timer = setTimeout(() => this.open(), pause);
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
