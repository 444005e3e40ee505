// Small charts under the lives, over the same time: who is ready, memory, CPU, queue, requests.

import {palette, prepare} from "./palette.js";
import {bytes, percent} from "./format.js";

const TALL = 36;
const TITLE = 14;

const number = (value) => (value >= 10 ? Math.round(value) : Math.round(value * 10) / 10).toString();

export const CHARTS = [
  {name: "ready", value: (s) => s.ready, limit: (s) => s.number, show: (s) => `${s.ready} of ${s.number}`, step: true},
  {name: "memory", value: (s) => s.rss, show: (s) => bytes(s.rss)},
  {name: "CPU", value: (s) => s.cpu_percent, show: (s) => percent(s.cpu_percent)},
  {name: "waiting connections", short: "queue", value: (s) => s.waiting, show: (s) => String(s.waiting), step: true},
  {name: "requests a second", short: "requests/s", value: (s) => s.requests, show: (s) =>
    (s.requests === undefined ? "–" : number(s.requests)), optional: true},
];

export function samplesWithin(pool, from, to) {
  const first = pool.series.length ? pool.series[0].at : Infinity;
  const all = pool.oldSeries.filter((s) => s.at < first).concat(pool.series);
  let begin = all.findIndex((s) => s.at >= from);
  if (begin < 0) begin = all.length;
  let end = begin;
  while (end < all.length && all[end].at <= to) end += 1;
  return all.slice(Math.max(0, begin - 1), end + 1);
}

export function chartsFor(samples) {
  return CHARTS.filter((chart) => !chart.optional || samples.some((s) => chart.value(s) !== undefined));
}

export function drawCharts(canvas, view) {
  const colours = palette();
  const shown = chartsFor(view.samples);
  const context = prepare(canvas, view.width, shown.length * (TALL + TITLE) + 2);
  const x = (at) => view.gutter + ((at - view.from) / (view.to - view.from)) * (view.width - view.gutter);
  shown.forEach((chart, i) => {
    const top = i * (TALL + TITLE) + TITLE;
    drawChart(context, chart, view, {top, x, colours});
  });
}

function drawChart(context, chart, view, {top, x, colours}) {
  const {samples, gutter, width} = view;
  let most = 0;
  for (const s of samples) most = Math.max(most, chart.value(s) ?? 0, chart.limit?.(s) ?? 0);
  const scale = most > 0 ? (TALL - 4) / most : 0;
  const bottom = top + TALL;
  const y = (value) => bottom - value * scale;

  context.fillStyle = colours.line;
  context.fillRect(gutter, bottom, width - gutter, 1);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillStyle = colours.soft;
  context.fillText(chart.name, gutter, top - TITLE / 2);
  const at = view.sample === null ? samples.at(-1) : view.sample;
  context.textAlign = "right";
  context.fillStyle = colours.ink;
  if (at) context.fillText(chart.show(at), width - 1, top - TITLE / 2);
  if (samples.length < 2 || most === 0) return;

  context.save();
  context.beginPath();
  context.rect(gutter, top - 2, width - gutter, TALL + 3);
  context.clip();
  const gap = holeAfter(view);
  for (const run of runsOf(samples, chart, gap)) {
    line(context, run, x, y, chart);
    context.lineTo(x(run.at(-1).at), bottom);
    context.lineTo(x(run[0].at), bottom);
    context.fillStyle = colours.faint;
    context.globalAlpha = 0.3;
    context.fill();
    context.globalAlpha = 1;
    line(context, run, x, y, chart);
    context.strokeStyle = colours.accent;
    context.lineWidth = 1.25;
    context.stroke();
    if (chart.limit) {
      line(context, run, x, (value) => y(value), {...chart, value: chart.limit});
      context.strokeStyle = colours.soft;
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      context.stroke();
      context.setLineDash([]);
    }
  }
  context.restore();
}

// Seconds without a sample in which nobody looked.
function holeAfter(view) {
  const {samples} = view;
  const middle = Math.floor(samples.length / 2);
  const step = samples.length > 1 ? samples[middle].at - samples[middle - 1].at : 0;
  return Math.max(12, (view.to - view.from) / 180, step * 3.5);
}

// Samples without a hole between them: where nobody looked, nothing is drawn.
function runsOf(samples, chart, gap) {
  const runs = [];
  let run = null;
  for (const s of samples) {
    if (chart.value(s) === undefined || chart.value(s) === null) continue;
    if (!run || s.at - run.at(-1).at > gap) runs.push((run = []));
    run.push(s);
  }
  return runs;
}

function line(context, run, x, y, chart) {
  context.beginPath();
  let before = null;
  for (const s of run) {
    const value = y(chart.value(s));
    if (before === null) {
      context.moveTo(x(s.at), value);
    } else {
      if (chart.step) context.lineTo(x(s.at), before);
      context.lineTo(x(s.at), value);
    }
    before = value;
  }
}

// The sample nearest to a time; undefined where there is none.
export function sampleAt(view, at) {
  let best;
  for (const s of view.samples) {
    if (!best || Math.abs(s.at - at) < Math.abs(best.at - at)) best = s;
  }
  return best && Math.abs(best.at - at) < holeAfter(view) ? best : undefined;
}
