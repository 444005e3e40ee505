// The last crashes, those alike together: a worker that dies again and again is one entry.

import {byId, el, keyed, setText, show} from "./dom.js";
import {count, duration, plain, when} from "./format.js";

const MOST_GROUPS = 20;
const MOST_LOOKED = 20000;
const MOST_LINES = 25;

// Alike is what ended in the same way, at the same stage, with the same last line but for numbers.
function groupKey(life) {
  const last = (life.lines?.at(-1) ?? "").replace(/[0-9a-f]*\d[0-9a-f]*/gi, "0");
  return `${life.version} ${life.stage} ${life.how} ${last}`;
}

export function groupCrashes(lives) {
  const groups = new Map();
  for (const life of lives.slice(-MOST_LOOKED)) {
    if (!life.crashed) continue;
    const key = groupKey(life);
    const group = groups.get(key) ?? {key, count: 0, slots: new Set(), first: life};
    group.count += 1;
    group.slots.add(life.slot);
    group.last = life;
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.last.ended_at - a.last.ended_at).slice(0, MOST_GROUPS);
}

export class Crashes {
  constructor(clock, open) {
    this.clock = clock;
    this.open = open;
  }

  draw(pool) {
    const mark = `${pool.name} ${pool.stream} ${pool.archive.length} ${pool.lives.length} ${pool.crashes} ${pool.lives.at(-1)?.lines?.length}`;
    const now = this.clock();
    if (mark !== this.mark) {
      this.mark = mark;
      this.groups = groupCrashes([...pool.archive.filter((life) => life.crashed), ...pool.lives]);
    }
    const known = this.groups.reduce((sum, group) => sum + group.count, 0);
    setText(byId("crash-count"), known || "");
    show(byId("no-crashes"), this.groups.length === 0);
    keyed(byId("crashes"), this.groups, (group) => group.key, () => this.make(), (item, group) =>
      update(item, group, now));
  }

  make() {
    const parts = {how: el("span", {class: "how"}), times: el("span", {class: "times"}),
      where: el("span", {class: "where"}), lines: el("pre", {tabindex: "0"})};
    const open = el("button", {type: "button", class: "link"}, "Everything of the last one");
    const box = el("details", {}, el("summary", {}, parts.times, parts.how, parts.where), parts.lines, open);
    const item = el("li", {class: "crash"}, box);
    item.parts = parts;
    open.addEventListener("click", () => this.open(item.group.last));
    return item;
  }
}

function update(item, group, now) {
  const {last} = group;
  const {parts} = item;
  item.group = group;
  setText(parts.times, group.count > 1 ? `${group.count}×` : "");
  setText(parts.how, last.how ?? "ended");
  const slots = [...group.slots].sort((a, b) => a - b);
  setText(parts.where, `${when(last.ended_at, now)} · v${last.version} · ` +
    `${slots.length > 4 ? count(slots.length, "slot") : `slot ${slots.join(", ")}`} · ` +
    `${last.stage || "?"} · lived ${duration(last.ended_at - last.spawned_at)}`);
  setText(parts.lines, outputOf(last, MOST_LINES));
}

// The last lines of a life, and its stack.
export function outputOf(life, most = 1000) {
  const lines = (life.lines ?? []).slice(-most).map((line) => plain(line, 600));
  const stack = (life.stack ?? []).slice(0, most).map((line) => plain(line, 600));
  const text = [...(stack.length ? ["stack:", ...stack.map((line) => `  ${line}`)] : []), ...lines];
  return text.length ? text.join("\n")
                     : "It left no last lines (einhorn --capture keeps them).";
}
