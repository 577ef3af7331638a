// Charts as SVG: sparklines, and lines over time with axes and a readout under the pointer.

import { fill, h, setAttribute, setText } from "./dom.js";
import { clock, compact, duration, rate } from "./format.js";

/** A line without axes that fills its box, for a cell of a table or a tile. */
export class Sparkline {
  /** @param {string} kind which colour it has: "in", "out", "items". */
  constructor(kind, width = 96, height = 24) {
    this.width = width;
    this.height = height;
    this.area = h("svg:path.area");
    this.line = h("svg:path.line");
    this.element = h(
      `svg:svg.sparkline.${kind}`,
      { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", preserveAspectRatio: "none" },
      this.area,
      this.line,
    );
  }

  /** @param {number[]} values oldest first, evenly spaced. */
  show(values) {
    // Nothing all the time is no line, so that those that have one stand out.
    if (!values || values.length < 2 || !values.some(Boolean)) {
      setAttribute(this.line, "d", null);
      setAttribute(this.area, "d", null);
      return;
    }
    const top = Math.max(...values);
    const step = this.width / (values.length - 1);
    const first = values.findIndex((value) => value !== null);
    const y = (value) => (this.height - 1.5 - (value / top) * (this.height - 3)).toFixed(1);
    const points = values.map((value, at) => `${(at * step).toFixed(1)} ${y(value)}`).slice(first);
    const path = `M${points.join("L")}`;
    setAttribute(this.line, "d", path);
    setAttribute(this.area, "d", `${path}L${this.width} ${this.height}L${(first * step).toFixed(1)} ${this.height}Z`);
  }
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** What an axis of durations is divided by, beyond a second. */
const DURATIONS = [
  ...[1, 2, 5, 10, 15, 30].map((number) => number * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((number) => number * MINUTE),
  ...[1, 2, 3, 6, 12].map((number) => number * HOUR),
  ...[1, 2, 5, 7, 14, 28].map((number) => number * DAY),
];

/**
 * The steps of an axis from 0 to at least this value: about four, each 1, 2 or 5 times a power of ten.
 * @param {boolean} durations whether the values are milliseconds: then a step is a whole unit of time, or some.
 */
export function ticks(top, durations = false) {
  if (!(top > 0)) return [0, 1];
  const rough = top / 4;
  const power = 10 ** Math.floor(Math.log10(rough) + 1e-9);
  let step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough - 1e-9);
  if (durations && rough > SECOND / 2) step = DURATIONS.find((size) => size >= rough) || step;
  const found = [];
  for (let at = 0; at < top + step * 0.999; at += step) found.push(at);
  return found;
}

const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].map((seconds) => seconds * 1000);
const MARGIN = { top: 10, right: 12, bottom: 22, left: 56 };
const HEIGHT = 180;

/**
 * Lines over time.
 *
 * Samples are `{time, NAME: number|null}`, with the time in milliseconds of Unix time; null is a gap.
 */
export class LineChart {
  /**
   * @param {string} title
   * @param {Array<{name: string, label: string, kind: string}>} series each line: its figure, its name, its colour.
   * @param {function(number): string} unit how a value is written.
   * @param {{integers?: boolean, durations?: boolean}} [options] whether values are whole numbers, or milliseconds.
   */
  constructor(title, series, unit, options = {}) {
    this.title = title;
    this.series = series;
    this.unit = unit;
    this.options = options;
    this.samples = [];
    this.span = 60_000;
    this.end = Date.now();
    this.width = 0;
    this.at = null;
    this.legend = series.map(({ label, kind }) => {
      const value = h("strong", {}, "–");
      return {
        value,
        element: h(`span.key.${kind}`, {}, h("span.swatch", { "aria-hidden": "true" }), label, " ", value),
      };
    });
    this.when = h("span.when");
    this.svg = h("svg:svg", { height: HEIGHT, "aria-hidden": "true", focusable: "false" });
    this.plot = h(
      "div.plot",
      {
        tabindex: "0",
        role: "img",
        onpointermove: (event) => this.#point(event),
        onpointerleave: () => this.#read(null),
        onkeydown: (event) => this.#step(event),
        onblur: () => this.#read(null),
      },
      this.svg,
    );
    this.element = h(
      "figure.chart",
      {},
      h(
        "figcaption",
        {},
        h("h3", {}, title),
        h(
          "div.legend",
          {},
          this.legend.map(({ element }) => element),
          this.when,
        ),
      ),
      this.plot,
    );
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width && width !== this.width) {
        this.width = width;
        this.#draw();
      }
    });
    this.observer.observe(this.plot);
  }

  /** Show samples, oldest first, of the last `span` milliseconds before `end`. */
  show(samples, span, end = Date.now()) {
    this.span = span;
    this.end = end;
    const from = end - span;
    let first = samples.findIndex(({ time }) => time >= from);
    if (first < 0) first = samples.length;
    this.samples = samples.slice(Math.max(0, first - 1));
    this.#draw();
  }

  close() {
    this.observer.disconnect();
  }

  #x(time) {
    const inner = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + ((time - this.end + this.span) / this.span) * inner;
  }

  #draw() {
    if (!this.width) return;
    const values = this.samples.flatMap((sample) => this.series.map(({ name }) => sample[name] ?? 0));
    const steps = ticks(Math.max(this.options.integers ? 4 : 0, ...values), this.options.durations);
    const top = steps[steps.length - 1];
    const bottom = HEIGHT - MARGIN.bottom;
    this.y = (value) => bottom - (value / top) * (bottom - MARGIN.top);
    const right = this.width - MARGIN.right;
    const grid = steps.map((value) => [
      h("svg:line.grid", { x1: MARGIN.left, x2: right, y1: this.y(value), y2: this.y(value) }),
      h("svg:text.tick", { x: MARGIN.left - 8, y: this.y(value) + 4, "text-anchor": "end" }, this.unit(value)),
    ]);
    const clip = `clip-${this.title.replace(/\W/g, "")}`;
    const lines = this.series.map(({ name, kind }) => this.#line(name, kind, bottom));
    this.cursor = h("svg:g.cursor");
    this.svg.setAttribute("width", this.width);
    fill(
      this.svg,
      h(
        "svg:clipPath",
        { id: clip },
        h("svg:rect", { x: MARGIN.left, y: 0, width: Math.max(0, right - MARGIN.left), height: bottom + 1 }),
      ),
      grid,
      this.#times(bottom),
      h("svg:g", { "clip-path": `url(#${clip})` }, lines),
      this.cursor,
    );
    this.#read(this.at);
    setAttribute(this.plot, "aria-label", this.#summary());
  }

  #times(bottom) {
    const wanted = Math.max(3, Math.floor(this.width / 80));
    const step = TIME_STEPS.find((size) => this.span / size <= wanted) || TIME_STEPS[TIME_STEPS.length - 1];
    const offset = new Date(this.end).getTimezoneOffset() * 60_000;
    const marks = [];
    for (let time = Math.ceil((this.end - this.span - offset) / step) * step + offset; time <= this.end; time += step) {
      const x = this.#x(time);
      if (x > this.width - MARGIN.right - 22 || x < MARGIN.left + 4) continue;
      marks.push(h("svg:text.tick", { x, y: bottom + 16, "text-anchor": "middle" }, clock(time, step < 60_000)));
    }
    return marks;
  }

  #line(name, kind, bottom) {
    const runs = [];
    let run = null;
    for (const sample of this.samples) {
      const value = sample[name];
      if (value === null || value === undefined) run = null;
      else {
        if (!run) runs.push((run = []));
        run.push([this.#x(sample.time), this.y(value)]);
      }
    }
    const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;
    const group = h(`svg:g.series.${kind}`);
    for (const points of runs) {
      if (points.length === 1) {
        group.append(h("svg:circle.dot", { cx: points[0][0], cy: points[0][1], r: 2 }));
        continue;
      }
      const end = `L${points[points.length - 1][0].toFixed(1)} ${bottom}L${points[0][0].toFixed(1)} ${bottom}Z`;
      if (this.series.length === 1) group.append(h("svg:path.area", { d: path(points) + end }));
      group.append(h("svg:path.line", { d: path(points) }));
    }
    return group;
  }

  #point(event) {
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    let best = null;
    for (const [at, sample] of this.samples.entries()) {
      const distance = Math.abs(this.#x(sample.time) - x);
      if (best === null || distance < best.distance) best = { at, distance };
    }
    this.#read(best && this.samples[best.at].time);
  }

  #step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!by || !this.samples.length) return;
    event.preventDefault();
    const last = this.samples.length - 1;
    let at = this.samples.findIndex(({ time }) => time === this.at);
    if (at < 0) at = last + (by < 0 ? 1 : 0);
    this.#read(this.samples[Math.min(last, Math.max(0, at + by))].time);
  }

  /** Show the values of one sample, or of the last one where the time is null. */
  #read(time) {
    const known = time !== null && this.samples.find((sample) => sample.time === time);
    this.at = known ? time : null;
    const sample = known || this.samples[this.samples.length - 1];
    for (const [at, { name }] of this.series.entries()) {
      const value = sample?.[name] ?? (known ? null : this.#latest(name));
      setText(this.legend[at].value, value === null ? "–" : this.unit(value));
    }
    setText(this.when, known ? `at ${clock(time)}` : "");
    if (!this.cursor) return;
    if (!known) {
      fill(this.cursor);
      return;
    }
    const x = this.#x(time);
    fill(
      this.cursor,
      h("svg:line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      this.series.map(({ name, kind }) => {
        const value = sample[name];
        if (value === null || value === undefined) return null;
        return h(`svg:circle.${kind}`, { cx: x, cy: this.y(value), r: 3.5 });
      }),
    );
  }

  /** What is known last of a figure, if that is not long ago. */
  #latest(name) {
    const found = this.samples.findLast((sample) => (sample[name] ?? null) !== null);
    return found && this.end - found.time < this.span / 50 + 15_000 ? found[name] : null;
  }

  #summary() {
    const over = `the last ${duration(this.span)}`;
    const parts = this.series.map(({ name, label }) => {
      const values = this.samples
        .map((sample) => sample[name])
        .filter((value) => value !== null && value !== undefined);
      if (!values.length) return `${label}: nothing yet`;
      const [low, high, last] = [Math.min(...values), Math.max(...values), values[values.length - 1]];
      return `${label}: now ${this.unit(last)}, between ${this.unit(low)} and ${this.unit(high)}`;
    });
    return `${this.title}, ${over}. ${parts.join(". ")}.`;
  }
}

/** The three charts of a queue, or of all: how many items, how fast they come and go, how old they become. */
export function courseCharts(title, label) {
  return [
    new LineChart(title, [{ name: "items", label, kind: "items" }], compact, { integers: true }),
    new LineChart(
      "In and out",
      [
        { name: "in_rate", label: "in/s", kind: "in" },
        { name: "out_rate", label: "out/s", kind: "out" },
      ],
      rate,
    ),
    new LineChart(
      "Age of what is taken",
      [
        { name: "age_p50_ms", label: "half", kind: "items" },
        { name: "age_p99_ms", label: "99 %", kind: "late" },
      ],
      duration,
      { durations: true },
    ),
  ];
}
