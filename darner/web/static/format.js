// Numbers, sizes, times and payloads as people read them.

const GROUPS = new Intl.NumberFormat("en");

/** 1234567 as "1,234,567". */
export const count = (value) => GROUPS.format(Math.round(value));

/** "1 item", "1,234 items". */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A number in at most four characters and a letter: 999, 9,999, 12.3k, 4.57M. */
export function compact(value) {
  const size = Math.abs(value);
  if (size < 10_000) return count(value);
  for (const [unit, letter] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (size >= unit) {
      const scaled = value / unit;
      return `${scaled.toFixed(Math.abs(scaled) < 100 ? 1 : 0)}${letter}`;
    }
  }
  return count(value);
}

/** Something by second: small rates have a decimal. */
export function rate(value) {
  if (!value) return "0";
  if (value < 0.1) return "<0.1";
  return value < 10 ? value.toFixed(1).replace(/\.0$/, "") : compact(value);
}

/** Bytes in powers of 1024. */
export function bytes(value) {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (size < 1024 || unit === "TiB")
      return unit === "B" ? `${count(size)} B` : `${size.toFixed(size < 100 ? 1 : 0)} ${unit}`;
    size /= 1024;
  }
  return "";
}

/** A time of so many milliseconds in its one or two largest units. */
export function duration(milliseconds) {
  const ms = Math.max(0, milliseconds);
  if (ms < 1) return ms ? "<1 ms" : "0";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1).replace(/\.0$/, "") : Math.floor(seconds)} s`;
  const units = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const at = units.findIndex(([, size]) => seconds >= size);
  const [name, size] = units[at];
  const [lower, lowerSize] = units[at + 1];
  const rest = Math.floor((seconds % size) / lowerSize);
  const first = `${count(Math.floor(seconds / size))} ${name}`;
  return rest ? `${first} ${rest} ${lower}` : first;
}

/** Unix time in milliseconds as date and time of the browser's zone. */
export function moment(milliseconds) {
  const date = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  );
}

/** The time of the day alone, with seconds or without. */
export const clock = (milliseconds, seconds = true) => moment(milliseconds).slice(11, seconds ? 19 : 16);

/** A share from 0 to 1 as "12 %". */
export const percent = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(share * 100)} %`;

/** Bytes as text, or null where they are not UTF-8. */
export function asText(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    return null;
  }
}

/** Bytes as JSON with two spaces for each level, or null where they are not JSON. */
export function asJson(data) {
  const text = asText(data);
  if (text === null) return null;
  try {
    // Numbers stay as they are written: a number of more than 53 bits would be another one.
    return indented(text, JSON.parse(text));
  } catch {
    return null;
  }
}

function indented(text, value) {
  if (typeof value !== "object" || value === null) return text.trim();
  let depth = 0,
    inString = false,
    out = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (inString) {
      out += letter;
      if (letter === "\\") out += text[++at];
      else if (letter === '"') inString = false;
    } else if (letter === '"') {
      inString = true;
      out += letter;
    } else if (letter === "{" || letter === "[") {
      const rest = /^\s*[}\]]/.exec(text.slice(at + 1, at + 200));
      if (rest) {
        out += letter + rest[0].trim();
        at += rest[0].length;
      } else {
        depth++;
        out += letter + line();
      }
    } else if (letter === "}" || letter === "]") {
      depth--;
      out += line() + letter;
    } else if (letter === ",") out += letter + line();
    else if (letter === ":") out += ": ";
    else if (!/\s/.test(letter)) out += letter;
  }
  return out;
}

/** Bytes as lines of offset, hexadecimal digits and characters, as `hexdump -C` has them. */
export function asHex(data, start = 0) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const row = data.subarray(at, at + 16);
    const digits = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"));
    const left = digits.slice(0, 8).join(" "),
      right = digits.slice(8).join(" ");
    const letters = Array.from(row, (byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${(start + at).toString(16).padStart(8, "0")}  ${left.padEnd(23)}  ${right.padEnd(23)}  ${letters}`);
  }
  return lines.join("\n");
}
