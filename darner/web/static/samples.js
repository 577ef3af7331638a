// The figures of the last hour: those that the server kept, and those that came since.

const HOUR = 3_600_000;
const FINE = 300_000;
const STEP = 10_000;
const HOLE = 25_000;

/** Samples `{time, NAME: number|null}` of one queue, or of all together. */
export class Samples {
  constructor() {
    this.coarse = [];
    this.fine = [];
  }

  /** Begin with a history of the server's; what came since stays. */
  begin(history) {
    const { start, step_ms: step, ...series } = history;
    const names = Object.keys(series).filter((name) => Array.isArray(series[name]));
    const length = names.length ? series[names[0]].length : 0;
    const points = Array.from({ length }, (_, at) => {
      const point = { time: start + at * step };
      for (const name of names) point[name] = series[name][at];
      return point;
    });
    const last = points.length ? points[points.length - 1].time : 0;
    this.coarse = [...points, ...this.coarse.filter(({ time }) => time > last)];
    const first = this.fine.length ? this.fine[0].time : Infinity;
    this.fine = [...points.filter(({ time }) => time < first && time > last - FINE), ...this.fine];
  }

  /** Add what a tick says. */
  add(sample) {
    const { time } = sample;
    const before = this.fine[this.fine.length - 1];
    if (before && time <= before.time) return;
    // Nobody knows what was in between.
    if (before && time - before.time > HOLE) this.fine.push({ time: before.time + 1 });
    this.fine.push(sample);
    while (this.fine.length && this.fine[0].time < time - FINE - STEP) this.fine.shift();
    const last = this.coarse[this.coarse.length - 1];
    if (!last || time - last.time >= STEP) {
      if (last && time - last.time > 4 * STEP) this.coarse.push({ time: last.time + 1 });
      this.coarse.push(sample);
    }
    while (this.coarse.length && this.coarse[0].time < time - HOUR - STEP) this.coarse.shift();
  }

  /** @returns {Array} those of the last `span` milliseconds, fine ones where there are. */
  of(span) {
    if (span <= FINE) return this.fine;
    const last = this.fine[this.fine.length - 1];
    return last && this.coarse.length && last.time > this.coarse[this.coarse.length - 1].time
      ? [...this.coarse, last]
      : this.coarse;
  }
}
