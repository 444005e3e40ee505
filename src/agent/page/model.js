// What is known of one pool: what the agent said of it, and what has happened since.
//
// The same as src/agent/pool_model.cpp does, event by event, so that nothing has to be asked for
// again while events come. Everything that grows is bounded.

const MOST_LIVES = 20000;
const MOST_SAMPLES = 20000;
const MOST_EVENTS = 2000;
const MOST_PINGS = 400;
const MOST_OUTPUT = 60;

// Signals that only pass through.
const PASSING = new Set(["USR1", "HUP"]);
const MARKS = new Set(["upgrade_started", "upgraded", "upgrade_failed", "rollback_started",
  "rolled_back", "master_started", "gave_up"]);

export class PoolModel {
  constructor(name) {
    this.name = name;
    this.workers = new Map();  // the living, by epoch
    this.lives = [];           // ended ones, oldest end first
    this.archive = [];         // ended ones that history gave, older than those or of older pools
    this.series = [];
    this.oldSeries = [];       // from history
    this.events = [];
    this.pings = [];           // apart: there may be a thousand a second
    this.marks = [];           // events to be seen in the timeline
    this.oldMarks = [];
    this.revision = 0;         // grows with every change of lives
  }

  // Everything anew, as /api/pools has it.
  reset(state) {
    const {workers, lives, series, events, ...rest} = state;
    for (const life of lives) life.stream = state.stream;
    if (this.stream && state.stream !== this.stream) this.leaveStream();
    const lost = this.lostWorkers(state);
    Object.assign(this, rest);
    this.workers = new Map(workers.map((worker) => [worker.epoch, worker]));
    // An agent that was started anew knows less of the past than this page.
    const told = new Set(lives.map((life) => life.epoch));
    this.lives = [...this.lives.filter((life) => !told.has(life.epoch)), ...lost, ...lives]
      .sort((a, b) => a.ended_at - b.ended_at).slice(-MOST_LIVES);
    const known = series.length ? series[0].at : Infinity;
    this.series = [...this.series.filter((sample) => sample.at < known), ...series].slice(-MOST_SAMPLES);
    const seen = this.events.length ? this.events[this.events.length - 1].n : 0;
    this.events.push(...events.filter((event) => event.n > seen));
    this.marks = this.events.filter((event) => MARKS.has(event.event));
    this.sampledAt = series.length ? series[series.length - 1].at : 0;
    this.tellsRequests = series.some((sample) => sample.requests !== undefined);
    this.requestsSeen = 0;
    this.seenAt = 0;
    this.revision += 1;
  }

  // Another pool has this name now; the past of the one before stays to be seen.
  leaveStream() {
    this.archive = [...this.archive, ...this.lives, ...this.lostWorkers({})].slice(-MOST_LIVES);
    this.oldSeries = [...this.oldSeries, ...this.series].slice(-MOST_SAMPLES);
    this.oldMarks = [...this.oldMarks, ...this.marks];
    this.workers.clear();
    this.lives = [];
    this.events = [];
    this.pings = [];
    this.series = [];
  }

  // Workers that lived when the page last heard of them, and of whose end nobody tells.
  lostWorkers({workers = [], lives = []}) {
    const known = new Set([...workers, ...lives].map((worker) => worker.epoch));
    const at = this.lostAt || this.heardAt || 0;
    return [...this.workers.values()].filter((worker) => !known.has(worker.epoch)).map((worker) =>
      ({...worker, stream: this.stream, state: "ended", ended_at: Math.max(at, worker.spawned_at), how: "ended while nobody looked",
        stage: "?", crashed: false}));
  }

  readyCount() {
    let ready = 0;
    for (const worker of this.workers.values()) ready += worker.state === "ready" ? 1 : 0;
    return ready;
  }

  // A line of the stream. False if it is known already.
  take(line) {
    if (line.event === "sample") {
      return this.takeSample(line);
    }
    if (!(line.n > this.n)) {
      return false;
    }
    if (line.n > this.n + 1) {
      this.missed += line.n - this.n - 1;
    }
    this.n = line.n;
    this.heardAt = line.at;
    const [kept, most] = line.event === "pinged" ? [this.pings, MOST_PINGS] : [this.events, MOST_EVENTS];
    kept.push(line);
    if (kept.length > most) kept.splice(0, most / 4);
    if (MARKS.has(line.event)) this.marks.push(line);
    const handler = POOL_EVENTS[line.event] ?? WORKER_EVENTS[line.event];
    if (handler) handler(this, line);
    return true;
  }

  takeSample(line) {
    if (!(line.at > this.sampledAt)) return false;
    this.heardAt = line.at;
    const sample = {at: line.at, ready: line.ready, number: line.number, rss: 0, cpu_percent: 0, waiting: 0};
    for (const each of line.workers ?? []) {
      const worker = this.workers.get(each.epoch);
      if (!worker) continue;
      if (worker.sampled_at) {
        worker.cpu_percent = Math.max(0, (100 * (each.cpu - worker.cpu)) / (line.at - worker.sampled_at));
      } else if (worker.cpu && this.sampledAt) {
        worker.cpu_percent = Math.max(0, (100 * (each.cpu - worker.cpu)) / (line.at - this.sampledAt));
      }
      worker.rss = each.rss;
      worker.cpu = each.cpu;
      worker.sampled_at = line.at;
      sample.rss += each.rss;
      sample.cpu_percent += worker.cpu_percent ?? 0;
    }
    for (const socket of line.sockets ?? []) sample.waiting += socket.waiting ?? 0;
    if (this.requestsSeen || this.tellsRequests) {
      this.tellsRequests = true;
      if (this.seenAt) sample.requests = this.requestsSeen / (line.at - this.seenAt);
    }
    this.requestsSeen = 0;
    this.seenAt = line.at;
    if (line.master) this.master_rss = line.master.rss;
    if (line.guard) this.guard_rss = line.guard.rss;
    this.sampledAt = line.at;
    this.series.push(sample);
    if (this.series.length > MOST_SAMPLES) this.series.splice(0, MOST_SAMPLES / 4);
    return true;
  }

  // A life by the name that the timeline and the lists know it by.
  life(key) {
    const found = (life) => lifeKey(life, this.stream) === key;
    for (const worker of this.workers.values()) if (found(worker)) return worker;
    return this.lives.findLast(found) ?? this.archive.findLast(found);
  }

  // What history has, older than what is here.
  addArchive(lives, series, upgrades) {
    const known = new Set(this.lives.map((life) => lifeKey(life, this.stream)));
    for (const epoch of this.workers.keys()) known.add(`${this.stream}:${epoch}`);
    this.archive = lives.filter((life) => !known.has(lifeKey(life, this.stream)));
    this.oldSeries = series;
    this.oldMarks = upgrades;
    this.revision += 1;
  }

  end(line) {
    const worker = this.workers.get(line.epoch) ?? {
      epoch: line.epoch, slot: line.slot, pid: line.pid, version: line.version,
      spawned_at: line.at - (line.lived ?? 0),
    };
    this.workers.delete(line.epoch);
    worker.state = "ended";
    worker.stream = this.stream;
    worker.ended_at = line.at;
    worker.how = line.how;
    worker.stage = line.stage;
    worker.status = line.status;
    worker.signal = line.signal;
    worker.crashed = !line.stopping;
    if (worker.crashed) this.crashes += 1;
    this.lives.push(worker);
    if (this.lives.length > MOST_LIVES) this.lives.splice(0, MOST_LIVES / 4);
    this.revision += 1;
  }
}

export const lifeKey = (life, stream) => `${life.stream ?? stream}:${life.epoch}`;

const POOL_EVENTS = {
  number_changed: (pool, line) => { pool.number = line.to; },
  scaled: (pool, line) => { pool.number = line.to; },
  master_started: (pool, line) => { pool.master = line.pid; },
  guard_lost: (pool) => { pool.guard = 0; },
  gave_up: (pool) => { pool.failed = true; },
  recovered: (pool) => { pool.failed = false; },
  stopping: (pool) => { pool.stopping = true; },
  signaling: (pool, line) => told(pool, line),
  recycled: (pool, line) => told(pool, line),
  upgrade_started: (pool, line) => begin(pool, line, line.kind),
  rollback_started: (pool, line) => begin(pool, line, "rollback"),
  upgraded: (pool, line) => { pool.upgrades += 1; finish(pool, line, "upgraded"); },
  rolled_back: (pool, line) => finish(pool, line, "rolled_back"),
  upgrade_failed: (pool, line) => finish(pool, line, "failed"),
  rollback_incomplete: (pool, line) => finish(pool, line, "failed"),
};

const WORKER_EVENTS = {
  spawned: (pool, line) => {
    pool.workers.set(line.epoch, {epoch: line.epoch, slot: line.slot, pid: line.pid,
      version: line.version, state: "starting", spawned_at: line.at});
    pool.revision += 1;
  },
  spawn_failed: (pool, line) => {
    pool.workers.delete(line.epoch);
    pool.revision += 1;
  },
  ready: (pool, line) => ofWorker(pool, line, (worker) => {
    worker.state = worker.stopping_at ? "stopping" : "ready";
    worker.ready_at = line.at;
  }),
  exited: (pool, line) => pool.end(line),
  pinged: (pool, line) => ofWorker(pool, line, (worker) => {
    // A request is one that begins, or another id than the last.
    const id = line.request_id ?? null;
    const other = id !== null && JSON.stringify(id) !== JSON.stringify(worker.request_id);
    if (line.busy ?? other) pool.requestsSeen += 1;
    worker.pinged_at = line.at;
    if (id !== null) worker.request_id = id;
    if (line.busy !== undefined) worker.busy = line.busy;
  }),
  status: (pool, line) => ofWorker(pool, line, (worker) => { worker.status_text = line.text; }),
  ailing: (pool, line) => ofWorker(pool, line, (worker) => { worker.ailment = line.reason; }),
  condemned: (pool, line) => ofWorker(pool, line, (worker) => { worker.ailment = line.reason; }),
  last_output: (pool, line) => addLines(pool, line, "lines"),
  stack: (pool, line) => addLines(pool, line, "stack"),
};

function ofWorker(pool, line, change) {
  const worker = pool.workers.get(line.epoch);
  if (worker) {
    change(worker);
    pool.revision += 1;
  }
}

function told(pool, line) {
  if (PASSING.has(line.signal)) return;
  for (const epoch of line.workers ?? []) {
    const worker = pool.workers.get(epoch);
    if (worker && !worker.stopping_at) {
      worker.stopping_at = line.at;
      worker.state = "stopping";
    }
  }
  pool.revision += 1;
}

function begin(pool, line, kind) {
  // A roll-back has the reason of the upgrade that failed.
  const before = pool.upgrade;
  const reason = kind === "rollback" && before?.outcome === "failed" && before.to === line.from ? before.reason : "";
  pool.version = line.to;
  pool.upgrade = {from: line.from, to: line.to, kind, started_at: line.at, outcome: "", reason};
}

function finish(pool, line, outcome) {
  if (outcome !== "failed") pool.version = line.version;
  pool.upgrade ??= {to: pool.version};
  pool.upgrade.ended_at = line.at;
  pool.upgrade.outcome = outcome;
  if (outcome === "failed") pool.upgrade.reason = line.reason;
}

function addLines(pool, line, member) {
  const last = pool.lives.slice(-200);
  const worker = pool.workers.get(line.epoch) ?? last.findLast((life) => life.epoch === line.epoch);
  if (!worker || !Array.isArray(line.lines)) return;
  worker[member] = [...(worker[member] ?? []), ...line.lines].slice(0, MOST_OUTPUT);
  pool.revision += 1;
}
