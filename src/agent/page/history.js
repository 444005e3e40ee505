// What has happened, as a table with filters: from the agent's history if it keeps one, and of what
// this page has seen.

import {byId, el, setText, show} from "./dom.js";
import {duration, plain, when} from "./format.js";
import {get} from "./feed.js";
import {lifeKey} from "./model.js";

const MOST_ROWS = 500;
const MOST_ASKED = 2000;
const MOST_LIVES = 20000;
const ROUTINE = new Set(["pinged", "ack_count"]);
const BAD = new Set(["upgrade_failed", "gave_up", "rollback_incomplete", "spawn_failed", "ack_missed",
  "condemned", "guard_lost", "reload_failed", "killing", "probe_failed"]);

const COLUMNS = {
  events: ["time", "event", "worker", "what"],
  crashes: ["time", "worker", "how it ended", "lived"],
  lives: ["time", "worker", "how it ended", "lived"],
  upgrades: ["time", "upgrade", "took", "outcome"],
};

// An event in words: its fields, but for those that have a column of their own.
export function describe(event) {
  const {n, at, event: name, slot, epoch, pid, version, lines, ...rest} = event;
  if (name === "exited") {
    return `${event.how}${event.stopping ? "" : " (crash)"}, ${event.stage}, lived ${duration(event.lived ?? 0)}`;
  }
  if (name === "ready") return `by ${event.by} after ${duration(event.after ?? 0)}`;
  if (name === "command") return [event.command, ...(event.args ?? [])].join(" ") + `, by uid ${event.uid}, pid ${event.pid}`;
  if (name === "status") return plain(event.text);
  if (name === "last_output" || name === "stack") return (lines ?? []).slice(-3).map((line) => plain(line)).join(" ⏎ ");
  if (name === "upgrade_started") return `v${event.from} → v${event.to}, ${event.kind}`;
  if (name === "signaling") return `${event.signal} to ${event.workers?.length ?? 0} of them`;
  return Object.entries(rest).map(([key, value]) => `${key} ${plain(value)}`).join(", ");
}

const worker = (row) => (row.slot === undefined || row.slot === null ? "" :
  `#${row.slot}${row.version === undefined || row.version === null ? "" : ` v${row.version}`}` +
  `${row.pid ? ` pid ${row.pid}` : ""}`);

const RENDER = {
  events: (row) => [el("code", {}, row.event), worker(row), describe(row)],
  crashes: (row) => [worker(row), `${row.how ?? "?"}, ${row.stage ?? "?"}`, duration(row.ended_at - row.spawned_at)],
  lives: (row) => [worker(row), `${row.crashed ? "crashed: " : ""}${row.how ?? "?"}`,
    duration(row.ended_at - row.spawned_at)],
  upgrades: (row) => [`v${row.from} → v${row.to} ${row.kind ?? ""}`,
    row.ended_at ? duration(row.ended_at - row.started_at) : "under way",
    [row.outcome?.replace("_", " ") || "under way", row.reason].filter(Boolean).join(": ")],
};

export class HistoryTable {
  // hooks: open(life)
  constructor(feed, hooks) {
    this.feed = feed;
    this.hooks = hooks;
    this.asked = null;  // {pool, kind, since, rows}
    for (const id of ["history-kind", "history-since"]) {
      byId(id).addEventListener("change", () => this.ask());
    }
    for (const id of ["history-filter", "history-routine"]) {
      byId(id).addEventListener("input", () => this.draw(this.pool));
    }
    byId("history-form").addEventListener("submit", (event) => event.preventDefault());
  }

  // The agent's history of the pool; what happens from then on is added by the page itself.
  async ask(pool = this.pool) {
    this.pool = pool;
    if (!pool) return;
    const kind = byId("history-kind").value;
    const since = Number(byId("history-since").value);
    const mine = {pool: pool.name, kind, since, rows: null};
    this.asked = mine;
    if (this.feed.agent.history) {
      try {
        const query = new URLSearchParams({kind, pool: pool.name, host: this.feed.agent.host ?? "",
          from: (this.feed.now() - since).toFixed(3), limit: MOST_ASKED});
        const rows = await get(`api/history?${query}`);
        if (this.asked !== mine) return;
        mine.rows = rows.map((row) => fromStore(kind, row));
      } catch (error) {
        mine.error = error.message;
      }
    }
    this.draw(pool);
  }

  rows() {
    const {kind, since, rows} = this.asked;
    const {pool} = this;
    const from = this.feed.now() - since;
    const live = kind === "events" ? [...pool.events, ...pool.pings]
      : kind === "upgrades" ? (pool.upgrade ? [{...pool.upgrade, at: pool.upgrade.started_at}] : [])
      : pool.lives.filter((life) => kind === "lives" || life.crashed).map((life) => ({...life, at: life.ended_at, life})).reverse();
    const key = kind === "events" ? (row) => `${row.stream ?? pool.stream}:${row.n}`
      : kind === "upgrades" ? (row) => `${row.from}:${row.to}:${Math.round(row.started_at ?? row.at)}`
      : (row) => lifeKey(row, pool.stream);
    const seen = new Set();
    return [...live, ...(rows ?? [])].filter((row) => {
      const name = key(row);
      if (!(row.at >= from) || seen.has(name)) return false;
      seen.add(name);
      return true;
    }).sort((a, b) => b.at - a.at);
  }

  draw(pool) {
    if (!pool) return;
    if (pool !== this.pool || !this.asked || this.asked.pool !== pool.name) {
      this.ask(pool);
      return;
    }
    const {kind} = this.asked;
    const routine = byId("history-routine").checked;
    const filter = byId("history-filter").value.toLowerCase();
    const now = this.feed.now();
    const wanted = [];
    let more = 0;
    for (const row of this.rows()) {
      if (kind === "events" && !routine && ROUTINE.has(row.event)) continue;
      if (wanted.length >= MOST_ROWS) {
        more += 1;
        continue;
      }
      const cells = RENDER[kind](row);
      const text = cells.map((cell) => (typeof cell === "string" ? cell : cell.textContent)).join(" ");
      if (filter && !text.toLowerCase().includes(filter)) continue;
      wanted.push([row, cells]);
    }
    const mark = JSON.stringify([kind, filter, wanted.length, wanted.map(([row]) => [row.n ?? row.epoch, row.at, row.outcome])]);
    this.note(wanted.length, more);
    if (mark === this.mark) return;
    this.mark = mark;
    byId("history-head").replaceChildren(...COLUMNS[kind].map((name) => el("th", {scope: "col"}, name)));
    byId("history-body").replaceChildren(...wanted.map(([row, cells]) => this.row(row, cells, now)));
    show(byId("history-routine").parentElement, kind === "events");
  }

  row(row, cells, now) {
    const bad = BAD.has(row.event) || row.outcome === "failed" || row.crashed ||
      (row.event === "exited" && !row.stopping);
    const life = row.life ?? (row.epoch !== undefined ? this.pool.life(lifeKey(row, this.pool.stream)) : null);
    const time = el("time", {datetime: new Date(row.at * 1000).toISOString()}, when(row.at, now));
    const first = life ? el("button", {type: "button", class: "link", onclick: () => this.hooks.open(life)}, time) : time;
    return el("tr", {class: bad ? "bad" : ""}, el("td", {}, first),
      ...cells.map((cell, i) => el("td", {class: i === cells.length - 1 ? "what" : ""}, cell)));
  }

  note(shown, more) {
    const kept = this.feed.agent.history;
    const parts = [];
    if (this.asked.error) parts.push(`The history could not be read: ${this.asked.error}`);
    else if (!kept) parts.push("This agent keeps no history (--history FILE); shown is what it has in memory.");
    if (shown === 0) parts.push("Nothing that matches.");
    if (more) parts.push(`The newest ${shown} are shown, of ${shown + more}.`);
    setText(byId("history-note"), parts.join(" "));
    show(byId("history-note"), parts.length > 0);
  }
}

// A row of the store as the rest of the page knows such things.
export function fromStore(kind, row) {
  if (kind === "events") {
    let event = {};
    try {
      event = JSON.parse(row.data);
    } catch (error) {
      event = {};
    }
    return {...event, n: row.n, at: row.at, event: row.event, stream: row.stream};
  }
  if (kind === "upgrades") {
    return {...row, from: row.from_version, to: row.to_version, at: row.started_at};
  }
  return {...row, crashed: row.crashed === 1, at: row.ended_at, ready_at: row.ready_at ?? undefined,
    stopping_at: row.stopping_at ?? undefined, status: row.status ?? undefined, state: "ended",
    lines: row.lines ? row.lines.trimEnd().split("\n") : undefined};
}

// The lives, samples and upgrades since `from`, for the timeline.
export async function askArchive(feed, pool, from) {
  const now = feed.now();
  const base = {pool: pool.name, host: feed.agent.host ?? "", from: from.toFixed(3)};
  const query = (more) => get(`api/history?${new URLSearchParams({...base, ...more})}`);
  const step = Math.max(1, Math.round((now - from) / 1500));
  const [lives, samples, upgrades] = await Promise.all([
    query({kind: "lives", limit: MOST_LIVES}), query({kind: "samples", limit: 20000, step}),
    query({kind: "upgrades", limit: 2000})]);
  return {
    // A pool that crashes each second has more lives than can be seen.
    cutAt: lives.length === MOST_LIVES ? lives.at(-1).ended_at : 0,
    lives: lives.map((row) => fromStore("lives", row)).reverse(),
    samples: samples.map((row) => ({...row, requests: row.requests ?? undefined})).reverse(),
    marks: upgrades.reverse().map((row) => ({at: row.started_at, to: row.to_version,
      event: row.kind === "rollback" ? "rollback_started" : "upgrade_started"})),
  };
}
