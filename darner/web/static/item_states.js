// The states of items: what a tab says, and what there is to know of an item in it.

import { bytes, count, duration } from "./format.js";

/** State, tab, and what is said where there are none. */
export const STATES = [
  [
    "ready",
    "Ready",
    "Nothing to take",
    "Items that can be taken now are here. What consumers take is gone from this list at once.",
  ],
  ["open", "Open", "Nobody has an item open", "A consumer that reads with /open has its item here until it closes it."],
  [
    "delayed",
    "Delayed",
    "No delayed items",
    "Items that were put with /delay, or on a queue with a default_delay, are here until they are due.",
  ],
  [
    "retrying",
    "Retrying",
    "Nothing waits for another attempt",
    "With a retry_delay, items that were given back are here until they are tried again.",
  ],
  [
    "dead",
    "Dead",
    "No dead letters",
    "With max_attempts and a dead_letter_queue, items that failed too often are here. You can send them back.",
  ],
];

/**
 * The columns of a state between id and payload: heading, text, class.
 * @param {number} now when the items were asked for, by the clock of the server, in ms.
 */
export function columns(state, now) {
  const due = ["Due in", ({ due }) => (due === null ? "–" : duration(due - now))];
  const attempts = ["Attempts", ({ attempts: times }) => count(times), "number"];
  const special =
    {
      open: [
        [
          "Open by",
          ({ opened }) =>
            opened ? [opened.user, opened.address].filter(Boolean).join(" at ") || `the ${opened.by}` : "–",
        ],
        ["Open for", ({ opened }) => (opened ? duration(now - opened.since) : "–")],
        attempts,
      ],
      delayed: [due],
      retrying: [due, attempts],
      dead: [attempts],
    }[state] || [];
  return [
    ["Age", ({ age_ms: age }) => duration(age)],
    ...special,
    ["Size", ({ size }) => bytes(size), "number"],
    ["Expires in", ({ expires }) => (expires === null ? "never" : duration(expires - now)), "spare"],
    ["Flags", ({ flags }) => String(flags), "number.spare"],
  ];
}
