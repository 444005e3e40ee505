// The living workers, a card each.

import {byId, el, keyed, setText, show} from "./dom.js";
import {age, bytes, percent, plain} from "./format.js";
import {colourIndex} from "./palette.js";

const DENSE = 32;  // with more workers the cards are small
const WORDS = {starting: "starting", ready: "ready", stopping: "draining"};

const ORDERS = {
  slot: (a, b) => a.slot - b.slot || a.epoch - b.epoch,
  age: (a, b) => b.spawned_at - a.spawned_at,
  rss: (a, b) => (b.rss ?? 0) - (a.rss ?? 0),
  cpu: (a, b) => (b.cpu_percent ?? 0) - (a.cpu_percent ?? 0),
  ping: (a, b) => (b.pinged_at ?? 0) - (a.pinged_at ?? 0),
};

export class Workers {
  constructor(clock, open) {
    this.clock = clock;
    this.open = open;
    this.sort = byId("worker-sort");
    this.filter = byId("worker-filter");
    const again = () => this.draw(this.pool);
    this.sort.addEventListener("change", again);
    this.filter.addEventListener("input", again);
  }

  draw(pool) {
    if (!pool) return;
    this.pool = pool;
    const now = pool.connected ? this.clock() : pool.lostAt || this.clock();
    const all = [...pool.workers.values()];
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = all.filter((worker) => words.every((word) => matches(worker, word)));
    shown.sort(ORDERS[this.sort.value]);
    const list = byId("workers");
    list.classList.toggle("dense", all.length > DENSE);
    keyed(list, shown, (worker) => worker.epoch, () => this.make(), (card, worker) =>
      update(card, worker, now, pool.version));
    setText(byId("worker-count"), shown.length === all.length ? String(all.length) : `${shown.length} of ${all.length}`);
    show(byId("no-workers"), shown.length === 0);
    setText(byId("no-workers"), all.length ? "None of them matches." : "None lives.");
  }

  make() {
    const part = (name, tag = "span") => el(tag, {class: name});
    const parts = {slot: part("slot"), state: part("state"), version: part("version"), pid: part("pid"),
      up: part("up"), rss: part("rss"), cpu: part("cpu"), ping: part("ping"), busy: part("busy"),
      text: part("text", "bdi")};
    const button = el("button", {type: "button"}, ...Object.values(parts));
    const card = el("li", {class: "card"}, button);
    card.parts = parts;
    button.addEventListener("click", () => this.open(card.worker));
    return card;
  }
}

function update(card, worker, now, version) {
  card.worker = worker;
  const {parts} = card;
  setClass(card, `card ${worker.state} c${colourIndex(worker.version)}` +
    `${worker.version !== version ? " old" : ""}${worker.ailment ? " ails" : ""}`);
  setText(parts.slot, `#${worker.slot}`);
  setText(parts.state, WORDS[worker.state] ?? worker.state);
  setText(parts.version, `v${worker.version}`);
  setText(parts.pid, worker.pid ? `pid ${worker.pid}` : "");
  setText(parts.up, `up ${age(now - worker.spawned_at)}`);
  setText(parts.rss, bytes(worker.rss));
  setText(parts.cpu, `${percent(worker.cpu_percent ?? 0)} CPU`);
  setText(parts.ping, worker.pinged_at ? `ping ${age(now - worker.pinged_at)}` : "");
  setText(parts.busy, worker.busy ? `busy${worker.request_id ? ": " + plain(worker.request_id, 80) : ""}` : "");
  setText(parts.text, plain(worker.ailment ?? worker.status_text, 200));
}

function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

function matches(worker, word) {
  if (/^v\d+$/.test(word)) return `v${worker.version}` === word;
  if (/^#\d+$/.test(word)) return `#${worker.slot}` === word;
  return [WORDS[worker.state], String(worker.pid), worker.busy ? "busy" : "idle",
    plain(worker.status_text, 1000), plain(worker.request_id, 1000)]
    .some((text) => text && text.toLowerCase().includes(word));
}
