// The lives of workers over time: a bar each, in the colour of its version; thin while it starts,
// full while it is ready, a tail while it drains, with a red tooth where it crashed.

import {colourIndex, palette, prepare} from "./palette.js";
import {tickLabel} from "./format.js";

export const AXIS = 34;  // the times, and under them the names of upgrades
const MARKS = 19;
const MOST_ROWS = 1200;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
  86400, 172800, 604800];

// Lives that touch the window, by their start.
export function livesWithin(pool, from, to) {
  const found = [];
  const look = (life) => {
    if (life.spawned_at <= to && !(life.ended_at < from)) found.push(life);
  };
  pool.archive.forEach(look);
  pool.lives.forEach(look);
  pool.workers.forEach(look);
  return found.sort((a, b) => a.spawned_at - b.spawned_at || a.epoch - b.epoch);
}

// Gives each life its row. "slot": a row for each slot, and another one beside it where two lives of
// a slot overlap, as in an upgrade; "life": a row each, in the order of their starts.
export function layOut(lives, kind) {
  if (kind === "life") {
    const kept = lives.slice(-MOST_ROWS);
    return {rows: kept.map((life) => ({label: String(life.slot), lives: [life]})), lives: kept};
  }
  const slots = new Map();
  for (const life of lives) {
    let lanes = slots.get(life.slot);
    if (!lanes) slots.set(life.slot, (lanes = []));
    const lane = lanes.find((each) => each.at(-1).ended_at <= life.spawned_at);
    if (lane) {
      lane.push(life);
    } else {
      lanes.push([life]);
    }
  }
  const rows = [...slots.entries()].sort((a, b) => a[0] - b[0]).flatMap(([slot, lanes]) =>
    lanes.map((lane, i) => ({label: i === 0 ? String(slot) : "", lives: lane})));
  return {rows, lives};
}

export function rowHeight(rows) {
  if (rows <= 12) return 16;
  if (rows <= 24) return 12;
  if (rows <= 60) return 7;
  if (rows <= 120) return 4;
  return rows <= 300 ? 3 : Math.max(1, 900 / rows);
}

export function ticks(from, to, width) {
  const least = ((to - from) / Math.max(1, width)) * 90;
  const step = STEPS.find((each) => each >= least) ?? STEPS.at(-1);
  const zone = step >= 3600 ? new Date(to * 1000).getTimezoneOffset() * 60 : 0;
  const found = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) found.push(at);
  return {step, at: found};
}

// Draws; the view has {pool, from, to, now, width, gutter, layout, cursor}.
export function drawWaterfall(canvas, view) {
  const colours = palette();
  const {rows} = view.layout;
  const height = rowHeight(rows.length);
  const whole = AXIS + Math.max(height * rows.length, 48) + 4;
  const context = prepare(canvas, view.width, whole);
  const right = view.width;
  const x = (at) => view.gutter + ((at - view.from) / (view.to - view.from)) * (right - view.gutter);

  drawAxis(context, view, x, whole, colours);
  const bars = gatherBars(rows, view, x, height);
  for (const [colour, list] of bars.fills) {
    context.fillStyle = colour;
    for (let i = 0; i < list.length; i += 4) context.fillRect(list[i], list[i + 1], list[i + 2], list[i + 3]);
  }
  context.fillStyle = colours.bad;
  for (let i = 0; i < bars.teeth.length; i += 3) {
    context.fillRect(bars.teeth[i], bars.teeth[i + 1], height >= 6 ? 2 : 1.5, bars.teeth[i + 2]);
  }
  drawMarks(context, view, x, whole, colours);
  drawLabels(context, view, rows, height, colours);
  if (view.now > view.from && view.now <= view.to) {
    context.fillStyle = colours.soft;
    context.fillRect(Math.round(x(view.now)), MARKS, 1, whole - MARKS);
  }
  if (view.cursor) drawCursor(context, view, rows, x, height, colours);
  if (rows.length === 0) {
    context.fillStyle = colours.soft;
    context.fillText("No worker lived in this time.", view.gutter + 8, AXIS + 28);
  }
}

// Rectangles by colour, so that the canvas changes its colour a few times and not thousands.
function gatherBars(rows, view, x, height) {
  const colours = palette();
  const fills = new Map();
  const teeth = [];
  const gap = height >= 3 ? 1 : 0;
  const add = (colour, x0, x1, top, tall) => {
    const left = Math.max(x0, view.gutter);
    const wide = Math.max(Math.min(x1, view.width) - left, 0.7);
    if (x1 < view.gutter) return;
    let list = fills.get(colour);
    if (!list) fills.set(colour, (list = []));
    list.push(left, top, wide, tall);
  };
  rows.forEach((row, i) => {
    const top = AXIS + i * height;
    const tall = height - gap;
    for (const life of row.lives) {
      const end = life.ended_at || view.now;
      const told = Math.min(life.stopping_at || end, end);
      const ready = Math.min(life.ready_at || told, told);
      const colour = colours.versions[colourIndex(life.version)];
      const pale = colours.pale[colourIndex(life.version)];
      if (ready > life.spawned_at) add(pale, x(life.spawned_at), x(ready), top, tall);
      if (life.ready_at && told > ready) add(colour, x(ready), x(told), top, tall);
      if (end > told) {
        const tail = Math.max(1, Math.round(tall * 0.3));
        add(pale, x(told), x(end), top, tall);
        add(colour, x(told), x(end), top + (tall - tail) / 2, tail);
      }
      if (life.crashed) {
        const at = x(end);
        if (at >= view.gutter && at <= view.width) teeth.push(Math.max(at - 2, view.gutter), top, tall);
      }
    }
  });
  return {fills, teeth};
}

function drawAxis(context, view, x, whole, colours) {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "center";
  const {step, at} = ticks(view.from, view.to, view.width - view.gutter);
  for (const each of at) {
    const place = Math.round(x(each));
    context.fillStyle = colours.line;
    context.fillRect(place, MARKS - 2, 1, whole - MARKS + 2);
    context.fillStyle = colours.soft;
    if (place > view.gutter + 20 && place < view.width - 24) {
      context.fillText(tickLabel(each, step), place, MARKS / 2 - 1);
    }
  }
}

// Upgrades and new masters, as lines over everything.
function drawMarks(context, view, x, whole, colours) {
  context.textAlign = "left";
  context.font = "10px system-ui, sans-serif";
  let free = -Infinity;
  for (const mark of [...view.pool.oldMarks, ...view.pool.marks]) {
    if (mark.at < view.from || mark.at > view.to) continue;
    const place = Math.round(x(mark.at));
    const [colour, label] = markLook(mark, colours);
    context.fillStyle = colour;
    context.globalAlpha = 0.55;
    context.fillRect(place, AXIS - 2, 1, whole - AXIS + 2);
    context.globalAlpha = 1;
    if (label && place > free) {
      const wide = context.measureText(label).width + 6;
      const left = Math.min(place, view.width - wide);
      context.fillRect(left, MARKS, wide, 13);
      context.fillStyle = colours.panel;
      context.fillText(label, left + 3, MARKS + 7);
      free = place + wide + 2;
    }
  }
}

function markLook(mark, colours) {
  switch (mark.event) {
    case "upgrade_started": return [colours.ink, `v${mark.to}`];
    case "rollback_started": return [colours.warn, `back to v${mark.to}`];
    case "upgrade_failed": return [colours.bad, "failed"];
    case "gave_up": return [colours.bad, "gave up"];
    case "master_started": return [colours.faint, ""];
    default: return [colours.faint, ""];
  }
}

function drawLabels(context, view, rows, height, colours) {
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "right";
  context.fillStyle = colours.soft;
  context.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(13 / height));
  let next = 0;
  rows.forEach((row, i) => {
    if (i < next || row.label === "") return;
    context.fillText(row.label, view.gutter - 6, AXIS + i * height + height / 2);
    next = i + every;
  });
  context.textAlign = "left";
  context.fillText("slot", 2, MARKS / 2 - 1);
}

function drawCursor(context, view, rows, x, height, colours) {
  const i = rows.findIndex((row) => row.lives.includes(view.cursor));
  if (i < 0) return;
  const left = Math.max(x(view.cursor.spawned_at), view.gutter);
  const wide = Math.max(x(view.cursor.ended_at || view.now) - left, 3);
  context.strokeStyle = colours.ink;
  context.lineWidth = 2;
  context.strokeRect(left - 1, AXIS + i * height - 1, wide + 2, height + 1);
}

// The life at a place of the canvas, or the nearest within a few pixels.
export function lifeAt(view, px, py) {
  const height = rowHeight(view.layout.rows.length);
  const row = view.layout.rows[Math.floor((py - AXIS) / height)];
  if (!row || px < view.gutter) return null;
  const scale = (view.to - view.from) / (view.width - view.gutter);
  const at = view.from + (px - view.gutter) * scale;
  let best = null;
  let distance = 4 * scale;
  for (const life of row.lives) {
    const end = life.ended_at || view.now;
    const away = at < life.spawned_at ? life.spawned_at - at : at > end ? at - end : 0;
    if (away < distance || (away === 0 && distance === 0)) {
      best = life;
      distance = away;
    }
  }
  return best;
}
