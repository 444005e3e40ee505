// Numbers and times as people read them.

export function bytes(count) {
  if (!count) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit > 1 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function percent(value) {
  if (value === undefined || value === null) return "–";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

// 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h
export function duration(seconds) {
  const value = Math.max(0, seconds);
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.floor(value)} s`;
  return twoUnits(value);
}

// The same without fractions, for what ticks on a screen.
export function age(seconds) {
  const value = Math.max(0, seconds);
  return value < 60 ? `${Math.floor(value)} s` : twoUnits(value);
}

function twoUnits(value) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => value >= size);
  const [size, name] = units[first];
  const whole = Math.floor(value / size);
  const next = units[first + 1];
  const rest = next ? Math.floor((value - whole * size) / next[0]) : 0;
  return rest ? `${whole} ${name} ${rest} ${next[1]}` : `${whole} ${name}`;
}

const timeOnly = new Intl.DateTimeFormat(undefined,
    {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const hourOnly = new Intl.DateTimeFormat(undefined,
    {hour: "2-digit", minute: "2-digit", hourCycle: "h23"});
const dayAndTime = new Intl.DateTimeFormat(undefined, {month: "short", day: "numeric",
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const dayOnly = new Intl.DateTimeFormat(undefined, {month: "short", day: "numeric"});

// A time of today as a time, others with their day.
export function when(at, now) {
  if (!at) return "–";
  const date = new Date(at * 1000);
  const today = new Date(now * 1000);
  return date.toDateString() === today.toDateString() ? timeOnly.format(date) : dayAndTime.format(date);
}

export function tickLabel(at, step) {
  const date = new Date(at * 1000);
  if (step < 60) return timeOnly.format(date);
  return step >= 3600 && date.getHours() === 0 && date.getMinutes() === 0 ? dayOnly.format(date)
                                                                          : hourOnly.format(date);
}

// What a worker gave may be anything, and as long as it likes.
export function plain(value, most = 300) {
  if (value === undefined || value === null) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
