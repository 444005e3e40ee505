// The page's line to its agent: server-sent events, and the whole state where those begin.
//
// Lines that come while the state is being fetched wait for it; those it already holds are known by
// their numbers. When the agent is silent for longer than it ever is, or the connection breaks, it
// is said, and tried again until the agent is back.

import {PoolModel} from "./model.js";

const SILENCE = 25000;  // the agent says something every ten seconds
const FIRST_PAUSE = 500;
const MOST_PAUSE = 5000;

export class Feed {
  // hooks: changed(pool, line), connection(pool), state("live"|"lost"), loaded()
  constructor(hooks) {
    this.hooks = hooks;
    this.pools = new Map();
    this.agent = {};
    this.offset = 0;  // the agent's clock less ours
    this.pause = FIRST_PAUSE;
    this.waiting = null;  // what came before the state
    this.heard = 0;
    setInterval(() => this.watch(), 2000);
    // A sleeping laptop's connection is dead without knowing it.
    addEventListener("online", () => this.lose());
    this.open();
  }

  now() {
    return Date.now() / 1000 + this.offset;
  }

  open() {
    const source = new EventSource("api/events");
    this.source = source;
    this.heard = Date.now();
    this.waiting = [];
    this.early = new Map();  // of single pools that are being fetched anew
    const on = (name, take) => source.addEventListener(name, (event) => {
      if (source !== this.source) return;
      this.heard = Date.now();
      take(JSON.parse(event.data));
    });
    on("hello", () => this.load(source));
    on("beat", () => {});
    for (const name of ["line", "reload", "connection"]) {
      on(name, (data) => {
        if (this.waiting) {
          this.waiting.push([name, data]);
        } else {
          this.handle(name, data);
        }
      });
    }
    source.addEventListener("error", () => {
      if (source === this.source) this.lose();
    });
  }

  lose() {
    this.source?.close();
    this.source = null;
    this.hooks.state("lost");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.pause);
    this.pause = Math.min(this.pause * 2, MOST_PAUSE);
  }

  watch() {
    if (this.source && Date.now() - this.heard > SILENCE) this.lose();
  }

  async load(source) {
    const answer = await this.get("api/pools", source);
    if (!answer) return;
    this.agent = answer.agent;
    this.offset = answer.agent.now - Date.now() / 1000;
    const names = new Set(answer.pools.map((pool) => pool.name));
    for (const name of [...this.pools.keys()]) {
      if (!names.has(name)) this.pools.delete(name);
    }
    for (const state of answer.pools) this.set(state);
    this.pause = FIRST_PAUSE;
    const lines = this.waiting;
    this.waiting = null;
    for (const [name, data] of lines) this.handle(name, data);
    this.hooks.state("live");
    this.hooks.loaded();
  }

  // What has come, unless its pool is being fetched anew: then it waits for that.
  handle(name, data) {
    const early = this.early.get(data.pool);
    if (early) {
      early.push([name, data]);
    } else if (name === "line") {
      this.take(data);
    } else if (name === "reload") {
      this.reload(data.pool);
    } else {
      this.takeConnection(data);
    }
  }

  // One pool anew.
  async reload(name) {
    const source = this.source;
    const early = this.early;
    early.set(name, []);
    const answer = await this.get(`api/pools?pool=${encodeURIComponent(name)}`, source);
    if (!answer) return;
    for (const state of answer.pools) this.set(state);
    const lines = early.get(name);
    early.delete(name);
    for (const [event, data] of lines) this.handle(event, data);
    this.hooks.loaded();
  }

  // An answer for this connection; null if that is lost, or was meanwhile.
  async get(path, source) {
    try {
      const answer = await get(path);
      return source === this.source ? answer : null;
    } catch (error) {
      if (source === this.source) this.lose();
      return null;
    }
  }

  set(state) {
    let pool = this.pools.get(state.name);
    if (!pool) {
      pool = new PoolModel(state.name);
      this.pools.set(state.name, pool);
    }
    const lost = pool.lostAt;
    pool.reset(state);
    pool.lostAt = state.connected ? 0 : lost || this.now();
  }

  take({pool: name, line}) {
    const pool = this.pools.get(name);
    if (!pool) {
      this.reload(name);
    } else if (pool.take(line)) {
      this.hooks.changed(pool, line);
    }
  }

  takeConnection(data) {
    const pool = this.pools.get(data.pool);
    if (!pool) {
      this.reload(data.pool);
      return;
    }
    pool.connected = data.connected;
    pool.error = data.error;
    pool.lostAt = data.connected ? 0 : pool.lostAt || this.now();
    this.hooks.connection(pool);
  }
}

export async function get(path) {
  const answer = await fetch(path, {cache: "no-store"});
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}
