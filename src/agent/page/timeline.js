// The window of time that lives and charts are drawn for: live or held, moved and zoomed by pointer
// and keys; what is under the pointer is told.

import {byId, el, setText, show} from "./dom.js";
import {age, count, duration, when} from "./format.js";
import {colourIndex} from "./palette.js";
import {AXIS, drawWaterfall, layOut, lifeAt, livesWithin, rowHeight} from "./waterfall.js";
import {chartsFor, drawCharts, sampleAt, samplesWithin} from "./charts.js";

export const RANGES = [[300, "5 min"], [900, "15 min"], [3600, "1 h"], [21600, "6 h"], [86400, "24 h"]];
const ROWS = [["slot", "slot"], ["life", "life"]];
const LEAST_RANGE = 20;
const MOST_RANGE = 30 * 86400;

export class Timeline {
  // hooks: open(life), moved(from): somebody looks so far back, chosen(): range or rows were changed
  constructor(clock, hooks, chosen) {
    this.clock = clock;
    this.hooks = hooks;
    this.range = chosen.range ?? 900;
    this.rows = chosen.rows === "life" ? "life" : "slot";
    this.end = null;  // null: now
    this.waterfall = byId("waterfall");
    this.charts = byId("charts");
    this.box = byId("timeline");
    this.makeChoices();
    this.listen();
  }

  makeChoices() {
    for (const [name, list, pick] of [
      ["range", RANGES, (value) => this.setRange(Number(value))],
      ["rows", ROWS, (value) => this.setRows(value)]]) {
      const box = byId(name === "range" ? "ranges" : "rows");
      for (const [value, label] of list) {
        const input = el("input", {type: "radio", name, value, onchange: () => pick(value)});
        box.append(el("label", {}, input, el("span", {}, label)));
      }
    }
    byId("live").addEventListener("click", () => this.goLive());
    this.showChoices();
  }

  showChoices() {
    for (const input of document.querySelectorAll("#ranges input")) {
      input.checked = Number(input.value) === this.range;
    }
    for (const input of document.querySelectorAll("#rows input")) input.checked = input.value === this.rows;
    byId("live").setAttribute("aria-pressed", String(this.end === null));
  }

  setRange(range) {
    this.range = Math.min(MOST_RANGE, Math.max(LEAST_RANGE, range));
    this.changed();
  }

  setRows(rows) {
    this.rows = rows;
    this.changed();
  }

  goLive() {
    this.end = null;
    this.changed();
  }

  // Moves by so many seconds; what would be the future is now.
  move(seconds) {
    const now = this.clock();
    const end = (this.end ?? now) + seconds;
    this.end = end >= now ? null : end;
    this.changed();
  }

  zoom(factor, at) {
    const [from, to] = this.window();
    const middle = at ?? (this.end === null ? to : (from + to) / 2);
    const range = Math.min(MOST_RANGE, Math.max(LEAST_RANGE, this.range * factor));
    const end = middle + ((to - middle) / this.range) * range;
    if (this.end !== null || at !== undefined) this.end = end >= this.clock() - range * 0.01 ? null : end;
    this.range = range;
    this.changed();
  }

  changed() {
    this.showChoices();
    this.hooks.moved(this.window()[0]);
    this.hooks.chosen();
    this.draw(this.pool);
  }

  window() {
    const to = this.end ?? this.clock();
    return [to - this.range, to + (this.end === null ? this.range * 0.015 : 0)];
  }

  // How often it must be drawn so that time is seen to pass.
  interval() {
    return Math.max(0.25, Math.min(30, this.range / 1200));
  }

  draw(pool) {
    if (!pool) return;
    this.pool = pool;
    const now = pool.connected ? this.clock() : pool.lostAt || this.clock();
    const [from, to] = this.window();
    const width = this.box.clientWidth;
    if (width < 40) return;
    const lives = livesWithin(pool, from, to);
    const view = {pool, from, to, now, width, rows: this.rows, gutter: width < 500 ? 28 : 36,
      layout: layOut(lives, this.rows), samples: samplesWithin(pool, from, to), cursor: this.cursor};
    view.sample = this.pointer ? sampleAt(view, this.timeAt(view, this.pointer.x)) : null;
    this.view = view;
    drawWaterfall(this.waterfall, view);
    drawCharts(this.charts, view);
    this.describe(lives, view);
    this.drawnAt = this.clock();
    this.showPointer();
  }

  timeAt(view, x) {
    return view.from + ((x - view.gutter) / (view.width - view.gutter)) * (view.to - view.from);
  }

  describe(lives, view) {
    const crashes = lives.filter((life) => life.crashed && life.ended_at >= view.from).length;
    const versions = [...new Set(lives.map((life) => life.version))].sort((a, b) => a - b);
    setText(byId("legend"), "");
    const shown = versions.slice(-6);
    byId("legend").replaceChildren(...shown.map((version) =>
      el("li", {}, el("i", {class: `swatch c${colourIndex(version)}`}), `v${version}`)));
    const text = `${count(lives.length, "life", "lives")} in ${age(view.to - view.from)}, ` +
      `${count(versions.length, "version")}, ${count(crashes, "crash", "crashes")}`;
    if (this.waterfall.getAttribute("aria-label") !== text) this.waterfall.setAttribute("aria-label", text);
    const cut = view.pool.cutAt > view.from;
    show(byId("timeline-note"), cut);
    if (cut) setText(byId("timeline-note"), `Older lives than of ${when(view.pool.cutAt, view.now)} are not shown: there are too many.`);
    const last = view.samples.at(-1);
    const chartText = last ? chartsFor(view.samples).map((c) => `${c.name} ${c.show(last)}`).join(", ")
                           : "no samples yet";
    if (this.charts.getAttribute("aria-label") !== chartText) this.charts.setAttribute("aria-label", chartText);
  }

  listen() {
    new ResizeObserver(() => this.draw(this.pool)).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(this.pool));
    this.box.addEventListener("pointermove", (event) => this.onMove(event));
    this.box.addEventListener("pointerleave", () => this.setPointer(null));
    this.box.addEventListener("pointerdown", (event) => {
      if (event.button === 0) this.drag = {x: event.clientX, end: this.end ?? this.clock(), moved: false};
    });
    addEventListener("pointerup", () => {
      this.dragged = Boolean(this.drag?.moved);
      this.drag = null;
    });
    // A finger that moves up or down scrolls the page.
    addEventListener("pointercancel", () => { this.drag = null; });
    this.waterfall.addEventListener("click", (event) => {
      if (this.dragged || !this.view) return;
      const life = lifeAt(this.view, event.offsetX, event.offsetY);
      if (life) this.hooks.open(life);
    });
    this.box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.timeAt(this.view, this.place(event).x));
    }, {passive: false});
    this.waterfall.addEventListener("keydown", (event) => this.onKey(event));
    this.waterfall.addEventListener("blur", () => {
      this.cursor = null;
      this.draw(this.pool);
    });
  }

  place(event) {
    const box = this.box.getBoundingClientRect();
    return {x: event.clientX - box.left, y: event.clientY - box.top};
  }

  onMove(event) {
    if (this.drag) {
      const away = event.clientX - this.drag.x;
      if (Math.abs(away) > 5) this.drag.moved = true;
      if (this.drag.moved && this.view) {
        const end = this.drag.end - (away * (this.view.to - this.view.from)) / (this.view.width - this.view.gutter);
        this.end = end >= this.clock() ? null : end;
        this.changed();
      }
    }
    this.setPointer(this.place(event));
  }

  setPointer(pointer) {
    this.pointer = pointer;
    if (!this.view) return;
    this.view.sample = pointer ? sampleAt(this.view, this.timeAt(this.view, pointer.x)) : null;
    if (!this.pending) {
      this.pending = requestAnimationFrame(() => {
        this.pending = 0;
        drawCharts(this.charts, this.view);
        this.showPointer();
      });
    }
  }

  showPointer() {
    const {pointer, view} = this;
    const inside = Boolean(pointer && view && pointer.x > view.gutter);
    show(byId("cross"), inside);
    const life = inside ? lifeAt(view, pointer.x, pointer.y) : null;
    this.waterfall.style.cursor = life ? "pointer" : "";
    const tip = byId("tip");
    show(tip, inside && pointer.y > 0);
    if (!inside) return;
    byId("cross").style.transform = `translateX(${Math.round(pointer.x)}px)`;
    const at = when(this.timeAt(view, pointer.x), view.now);
    tip.replaceChildren(el("b", {}, at), ...(life ? lifeLines(life, view.now) : []));
    const left = pointer.x + 14 + tip.offsetWidth > view.width ? pointer.x - 14 - tip.offsetWidth : pointer.x + 14;
    const top = life ? Math.min(pointer.y + 12, this.box.clientHeight - tip.offsetHeight - 2) : 0;
    tip.style.transform = `translate(${Math.max(0, Math.round(left))}px, ${Math.round(top)}px)`;
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowRight: () => this.step(1, 0), ArrowLeft: () => this.step(-1, 0),
      ArrowDown: () => this.step(0, 1), ArrowUp: () => this.step(0, -1),
      Enter: () => this.cursor && this.hooks.open(this.cursor),
      PageUp: () => this.move(-this.range / 2), PageDown: () => this.move(this.range / 2),
      End: () => this.goLive(), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  // The cursor to the life beside: in its row, or in the row above or below.
  step(along, across) {
    const rows = this.view?.layout.rows ?? [];
    if (!rows.length) return;
    let row = rows.findIndex((each) => each.lives.includes(this.cursor));
    if (row < 0) {
      this.cursor = rows[0].lives.at(-1);
    } else if (across) {
      row = Math.min(rows.length - 1, Math.max(0, row + across));
      const middle = ((this.cursor.ended_at || this.view.now) + this.cursor.spawned_at) / 2;
      this.cursor = rows[row].lives.reduce((best, life) =>
        (Math.abs(life.spawned_at - middle) < Math.abs(best.spawned_at - middle) ? life : best));
    } else {
      const {lives} = rows[row];
      const next = lives.indexOf(this.cursor) + along;
      this.cursor = lives[Math.min(lives.length - 1, Math.max(0, next))];
    }
    this.hooks.announce(lifeLines(this.cursor, this.view.now).map((node) => node.textContent).join(", "));
    this.draw(this.pool);
    const top = AXIS + rows.findIndex((each) => each.lives.includes(this.cursor)) * rowHeight(rows.length);
    const box = this.box.getBoundingClientRect();
    if (box.top + top < 0 || box.top + top > innerHeight) scrollBy(0, box.top + top - innerHeight / 2);
  }
}

// A life in a few lines.
export function lifeLines(life, now) {
  const lines = [`slot ${life.slot} · v${life.version} · pid ${life.pid}`];
  const end = life.ended_at || now;
  if (life.ready_at) {
    lines.push(`ready after ${duration(life.ready_at - life.spawned_at)}`);
  } else if (life.state === "starting") {
    lines.push(`starting for ${duration(end - life.spawned_at)}`);
  } else {
    lines.push("was never ready");
  }
  if (life.stopping_at) lines.push(`${life.ended_at ? "drained" : "draining"} ${duration(end - life.stopping_at)}`);
  if (life.ended_at) {
    lines.push(`lived ${duration(end - life.spawned_at)}`);
    lines.push(life.crashed ? `crashed: ${life.how}` : `ended: ${life.how ?? "?"}`);
  } else {
    lines.push(`up ${age(end - life.spawned_at)}`);
  }
  return lines.map((line, i) => el("span", {class: life.crashed && i === lines.length - 1 ? "bad" : ""}, line));
}
