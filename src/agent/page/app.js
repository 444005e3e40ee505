// The page: which pool is shown, and when what is drawn.

import {byId, el, keyed, setText, show} from "./dom.js";
import {age, bytes, count, duration, percent, when} from "./format.js";
import {Feed} from "./feed.js";
import {Timeline, RANGES} from "./timeline.js";
import {Workers} from "./workers.js";
import {Crashes} from "./crashes.js";
import {HistoryTable, askArchive} from "./history.js";
import {LifeDrawer} from "./life.js";
import {Control} from "./control.js";

const chosen = new URLSearchParams(location.hash.slice(1));
const feed = new Feed({
  changed: (pool, line) => changed(pool, line),
  connection: (pool) => connectionChanged(pool),
  state: (state) => setState(state),
  loaded: () => loaded(),
});
const clock = () => feed.now();
const openLife = (life) => drawer.open(shown(), life);
const timeline = new Timeline(clock, {open: openLife, moved: (from) => fetchArchive(from), chosen: remember, announce},
    {range: Number(chosen.get("range")) || undefined, rows: chosen.get("rows")});
const workers = new Workers(clock, openLife);
const crashes = new Crashes(clock, openLife);
const history = new HistoryTable(feed, {open: openLife});
const control = new Control(toast);
const drawer = new LifeDrawer(feed, (pool, life) => control.ask("stop_worker", pool, life));
let state = "connecting";
let lostAt = 0;
let dirty = false;
let drawn = 0;
let shownName = chosen.get("pool");

// --- what is shown -------------------------------------------------------------------------------

function shown() {
  const pools = [...feed.pools.values()].sort((a, b) => a.name.localeCompare(b.name));
  return feed.pools.get(shownName) ?? pools[0];
}

function remember() {
  const pool = shown();
  const words = new URLSearchParams();
  if (pool) words.set("pool", pool.name);
  words.set("range", String(Math.round(timeline.range)));
  words.set("rows", timeline.rows);
  window.history.replaceState(null, "", `#${words}`);
}

function choose(name) {
  if (!feed.pools.has(name)) return;
  shownName = name;
  timeline.cursor = null;
  remember();
  fetchArchive(timeline.window()[0]);
  history.ask(shown());
  redraw();
}

// --- what comes ----------------------------------------------------------------------------------

function loaded() {
  const pool = shown();
  if (pool) {
    fetchArchive(timeline.window()[0]);
    history.ask(pool);
  }
  redraw();
}

function changed(pool, line) {
  if (line.event === "exited" && !line.stopping) {
    announce(`${pool.name}: worker ${line.slot} crashed, ${line.how}`);
  } else if (SAID[line.event]) {
    announce(`${pool.name}: ${SAID[line.event](line)}`);
  }
  redraw();
}

const SAID = {
  upgrade_started: (line) => `upgrade from version ${line.from} to ${line.to} started`,
  upgraded: (line) => `upgraded to version ${line.version}`,
  upgrade_failed: (line) => `the upgrade failed: ${line.reason}`,
  rolled_back: (line) => `rolled back to version ${line.version}`,
  gave_up: () => "workers die too often; no more are started",
  recovered: () => "workers are started again",
  number_changed: (line) => `${line.to} workers are wanted now`,
  stopping: () => "goes down",
};

function connectionChanged(pool) {
  announce(`${pool.name}: ${pool.connected ? "the master is there again" : "no connection to the master"}`);
  redraw();
}

function setState(now) {
  if (now === state) return;
  if (now === "lost" && state !== "lost") lostAt = feed.now();
  state = now;
  redraw();
}

// What history has of the time that is looked at, once.
async function fetchArchive(from) {
  const pool = shown();
  if (!pool || !feed.agent.history || pool.archiveFrom <= from) return;
  const wide = Math.min(from, feed.now() - RANGES[2][0]);
  pool.archiveFrom = wide;
  try {
    const {cutAt, lives, samples, marks} = await askArchive(feed, pool, wide);
    pool.addArchive(lives, samples, marks);
    pool.cutAt = cutAt;
    redraw();
  } catch (error) {
    pool.archiveFrom = undefined;
  }
}

// --- drawing -------------------------------------------------------------------------------------

function redraw() {
  if (dirty) return;
  dirty = true;
  // A hundred events at once are one picture.
  setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawn + 120 - performance.now()));
}

function draw() {
  dirty = false;
  drawn = performance.now();
  drawTop();
  const pool = shown();
  show(byId("pool"), Boolean(pool));
  show(byId("empty"), !pool);
  if (!pool) {
    setText(byId("empty"), state === "live" ? "The agent knows no pool yet." : "Waiting for the agent.");
    return;
  }
  drawHead(pool);
  drawUpgrade(pool);
  timeline.draw(pool);
  workers.draw(pool);
  crashes.draw(pool);
  history.draw(pool);
  drawer.draw();
}

function drawTop() {
  const pools = [...feed.pools.values()].sort((a, b) => a.name.localeCompare(b.name));
  keyed(byId("pools"), pools, (pool) => pool.name, makePool, updatePool);
  const text = {connecting: "connecting", live: `agent ${feed.agent.version ?? ""}`, lost: "no agent"}[state];
  setText(byId("agent-state"), text);
  byId("agent-state").className = `agent-state ${state}`;
  show(byId("lost"), state === "lost");
  if (state === "lost") {
    setText(byId("lost"), `The agent at ${location.host} does not answer. This is how it was at ${when(lostAt, feed.now())}; trying again.`);
  }
  document.body.classList.toggle("stale", state === "lost");
}

function makePool(pool) {
  const parts = {name: el("span", {class: "name"}), ready: el("span", {class: "ready"})};
  const button = el("button", {type: "button", onclick: () => choose(pool.name)}, parts.name, parts.ready);
  const item = el("li", {}, button);
  Object.assign(item, {parts, button});
  return item;
}

function updatePool(item, pool) {
  setText(item.parts.name, pool.name);
  setText(item.parts.ready, pool.connected ? `${pool.readyCount()}/${pool.number}` : "?");
  const look = `pool-button ${poolState(pool)[0]}`;
  if (item.button.className !== look) item.button.className = look;
  item.button.setAttribute("aria-current", String(pool === shown()));
  item.button.title = poolState(pool)[1];
}

// A class and words.
function poolState(pool) {
  if (!pool.connected) return ["bad", "no master"];
  if (pool.failed) return ["bad", "gave up"];
  if (pool.stopping) return ["warn", "going down"];
  if (pool.upgrade && !pool.upgrade.outcome) return ["busy", "upgrading"];
  return pool.readyCount() < pool.number ? ["warn", "short of workers"] : ["ok", "up"];
}

function drawHead(pool) {
  setText(byId("pool-title"), pool.name);
  document.title = `${pool.name} · Einhorn`;
  const [look, words] = poolState(pool);
  byId("pool-state").className = `pill ${look}`;
  setText(byId("pool-state"), words);
  const last = pool.series.at(-1);
  const facts = [["ready", `${pool.readyCount()} of ${pool.number}`], ["version", String(pool.version)]];
  if (last) {
    facts.push(["memory", bytes(last.rss)], ["CPU", percent(last.cpu_percent)], ["queue", String(last.waiting)]);
    if (last.requests !== undefined) facts.push(["requests", `${last.requests.toFixed(1)}/s`]);
  }
  facts.push(["master", String(pool.master || "–")], ["guard", String(pool.guard || "–")]);
  const mark = JSON.stringify(facts);
  if (byId("facts").dataset.mark !== mark) {
    byId("facts").dataset.mark = mark;
    byId("facts").replaceChildren(...facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }
  drawNotice(pool);
  show(byId("control"), Boolean(feed.agent.control));
  for (const button of byId("control").children) button.disabled = state !== "live" || !pool.connected;
  byId("pool").classList.toggle("stale", !pool.connected);
}

function drawNotice(pool) {
  const notice = byId("pool-notice");
  show(notice, !pool.connected || pool.failed);
  notice.className = "notice bad";
  if (!pool.connected) {
    setText(notice, `No connection to the master of ${pool.name}: ${pool.error}. This is how it was at ` +
      `${when(pool.lostAt, feed.now())}; the agent tries again.${pool.stopping ? "" : " Workers serve on while there is no master."}`);
  } else if (pool.failed) {
    setText(notice, "Workers die before they are ready, again and again: no more are started until the next upgrade or command.");
  }
}

function drawUpgrade(pool) {
  const {upgrade} = pool;
  const recent = upgrade && (!upgrade.outcome || feed.now() - upgrade.ended_at < 3600);
  show(byId("upgrade"), Boolean(recent));
  if (!recent) return;
  let ready = 0;
  let old = 0;
  for (const worker of pool.workers.values()) {
    if (worker.version !== upgrade.to) old += 1;
    else if (worker.state === "ready") ready += 1;
  }
  const kind = upgrade.kind === "rollback" ? "Roll-back" : upgrade.kind === "fleet" ? "Fleet upgrade" : "Upgrade";
  const versions = upgrade.from === undefined ? `to v${upgrade.to}` : `v${upgrade.from} → v${upgrade.to}`;
  const taken = (upgrade.ended_at || feed.now()) - upgrade.started_at;
  const time = upgrade.started_at ? (upgrade.ended_at ? duration(taken) : age(taken)) : "";
  byId("upgrade").className = `upgrade ${upgrade.outcome || "running"}`;
  const outcome = {
    "": `${ready} of ${pool.number} ready, ${old} old left`,
    upgraded: `done${old ? `, ${old} old ones drain` : ""}`,
    rolled_back: "done",
    failed: `failed: ${upgrade.reason}`,
  }[upgrade.outcome];
  const why = upgrade.reason && upgrade.outcome !== "failed" ? `. Version ${upgrade.from} failed: ${upgrade.reason}` : "";
  const ago = upgrade.outcome ? `, at ${when(upgrade.ended_at, feed.now())}` : "";
  setText(byId("upgrade-text"), `${kind} ${versions}: ${outcome}${time ? ` (${time})` : ""}${ago}${why}`);
  const bar = byId("upgrade-bar");
  show(bar, !upgrade.outcome);
  bar.max = Math.max(1, pool.number);
  bar.value = Math.min(ready, pool.number);
}

// --- words for everybody, one at a time ----------------------------------------------------------

const waiting = [];
function announce(text) {
  waiting.push(text);
  if (waiting.length > 1) return;
  setTimeout(() => {
    const all = waiting.splice(0);
    setText(byId("announce"), all.length > 3 ? `${all.at(-1)}, and ${count(all.length - 1, "other change")}` : all.join(". "));
  }, 1500);
}

let toastTimer = 0;
function toast(text) {
  setText(byId("toast"), text);
  show(byId("toast"), true);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => show(byId("toast"), false), 8000);
}

// --- keys and buttons ----------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", () => control.ask(button.dataset.command, shown()));
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
byId("help-button").addEventListener("click", () => byId("help").showModal());

function neighbour(step) {
  const names = [...feed.pools.keys()].sort((a, b) => a.localeCompare(b));
  choose(names[(names.indexOf(shown()?.name) + step + names.length) % names.length]);
}

const KEYS = {
  "?": () => byId("help").showModal(),
  "/": () => byId("worker-filter").focus(),
  h: () => byId("history-filter").focus(),
  w: () => byId("waterfall").focus(),
  l: () => timeline.goLive(),
  r: () => timeline.setRows(timeline.rows === "slot" ? "life" : "slot"),
  "[": () => neighbour(-1),
  "]": () => neighbour(1),
};
RANGES.forEach(([range], i) => { KEYS[String(i + 1)] = () => timeline.setRange(range); });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// Time passes although nothing happens.
setInterval(() => {
  if (document.hidden || !shown()) return;
  redraw();
}, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) redraw(); });
redraw();
