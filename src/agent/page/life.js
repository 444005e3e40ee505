// One worker's life in full: a drawer at the side.

import {byId, el, fillPairs, setText, show} from "./dom.js";
import {age, bytes, duration, percent, plain, when} from "./format.js";
import {outputOf} from "./crashes.js";
import {describe, fromStore} from "./history.js";
import {get} from "./feed.js";
import {lifeKey} from "./model.js";

const WORDS = {starting: "starting", ready: "ready", stopping: "draining", ended: "ended"};

export class LifeDrawer {
  constructor(feed, stop) {
    this.feed = feed;
    this.dialog = byId("life");
    byId("life-stop").addEventListener("click", () => {
      this.dialog.close();
      stop(this.pool, this.life);
    });
  }

  open(pool, life) {
    this.pool = pool;
    this.key = lifeKey(life, pool.stream);
    this.life = life;
    this.mark = "";
    this.told = null;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.ask();
  }

  // What history has of it, if the page has not seen all of its life.
  async ask() {
    const {pool, key, life} = this;
    const {agent} = this.feed;
    if (!agent.history || pool.events.some((event) => event.event === "spawned" && event.epoch === life.epoch)) return;
    const query = new URLSearchParams({kind: "events", pool: pool.name, host: agent.host ?? "", epoch: life.epoch,
      from: (life.spawned_at - 1).toFixed(3), limit: 200});
    const rows = await get(`api/history?${query}`).catch(() => []);
    if (key !== this.key) return;
    this.told = rows.map((row) => fromStore("events", row)).reverse()
      .filter((event) => `${event.stream}:${event.epoch}` === key);
    for (const [name, member] of [["last_output", "lines"], ["stack", "stack"]]) {
      const lines = this.told.filter((event) => event.event === name).flatMap((event) => event.lines ?? []);
      if (lines.length && !life[member]) life[member] = lines;
    }
    this.draw();
  }

  draw() {
    if (!this.pool || (this.mark && !this.dialog.open)) return;
    const {pool} = this;
    const life = pool.life(this.key) ?? this.life;
    this.life = life;
    const now = pool.connected ? this.feed.now() : pool.lostAt || this.feed.now();
    setText(byId("life-title"), `Worker #${life.slot}, version ${life.version}`);
    fillPairs(byId("life-facts"), facts(life, now));
    const lived = Boolean(life.ended_at);
    show(byId("life-output-part"), life.crashed || Boolean(life.lines?.length || life.stack?.length));
    setText(byId("life-output"), outputOf(life));
    const seen = (life.stream ?? pool.stream) === pool.stream
      ? pool.events.filter((event) => event.epoch === life.epoch) : [];
    const last = this.told?.at(-1)?.n ?? 0;
    const events = [...(this.told ?? []), ...seen.filter((event) => event.n > last)]
      .filter((event) => event.event !== "pinged").slice(-40);
    show(byId("life-events-part"), events.length > 0);
    const mark = `${this.key} ${events.length} ${events.at(-1)?.n}`;
    if (mark !== this.mark) {
      this.mark = mark;
      byId("life-events").replaceChildren(...events.map((event) =>
        el("li", {}, el("time", {}, when(event.at, now)), " ", el("code", {}, event.event), " ", describe(event))));
    }
    show(byId("life-control"), Boolean(this.feed.agent.control) && !lived && pool.connected);
  }
}

function facts(life, now) {
  const end = life.ended_at || now;
  const pairs = [["state", WORDS[life.state] ?? (life.ended_at ? "ended" : "?")], ["pid", String(life.pid || "–")],
    ["started", when(life.spawned_at, now)]];
  if (life.ready_at) pairs.push(["ready", `after ${duration(life.ready_at - life.spawned_at)}`]);
  if (life.stopping_at) pairs.push(["told to stop", when(life.stopping_at, now)]);
  if (life.ended_at) {
    pairs.push(["ended", when(life.ended_at, now)], ["lived", duration(end - life.spawned_at)],
      ["how", el("span", {class: life.crashed ? "bad" : ""}, `${life.crashed ? "crashed: " : ""}${life.how ?? "?"}`)],
      ["while", life.stage ?? "?"]);
  } else {
    pairs.push(["up", age(end - life.spawned_at)], ["memory", bytes(life.rss)],
      ["CPU", `${percent(life.cpu_percent ?? 0)} now, ${duration(life.cpu ?? 0)} in all`],
      ["last ping", life.pinged_at ? `${age(now - life.pinged_at)} ago` : "none"],
      ["busy", life.busy ? "yes" : "no"]);
  }
  // Of one that has ended: what it was at.
  if (life.request_id !== undefined && life.request_id !== null) {
    pairs.push([life.ended_at && life.busy ? "at work on" : "request", el("bdi", {}, plain(life.request_id, 400))]);
  }
  if (life.status_text) pairs.push([life.ended_at ? "said" : "says", el("bdi", {}, plain(life.status_text, 1000))]);
  if (life.ailment) pairs.push(["ails", el("bdi", {}, plain(life.ailment, 400))]);
  return pairs;
}
