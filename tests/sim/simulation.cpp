#include "sim/simulation.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>

#include "wire/snapshot.h"

namespace einhorn::sim {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

// A life in which so much has happened shows nothing new, and would take minutes.
constexpr std::uint64_t kMostChaos = 40'000;  // lines of the trace
constexpr std::size_t kMostWorkers = 400;

constexpr const char* kPoolGroup = "/cgroup/memory/einhorn";

wire::Snapshot first_snapshot(const Plan& plan) {
  wire::Snapshot snapshot;
  wire::Settings& settings = snapshot.settings;
  settings.name = "sim";
  settings.socket_path = "/run/einhorn.sock";
  settings.notify_path = "/run/einhorn.notify";
  settings.original_command = {"server"};
  settings.script = "einhorn";
  settings.directory = "/srv/app";
  settings.current_directory = "/";
  settings.start_environment = {"PATH=/usr/bin"};
  settings.log_json = plan.log_json;
  settings.capture = plan.capture;
  if (plan.intercept) {
    settings.intercept = wire::Interception::kSeccomp;
    // Not drawn, so that other lives stay what they are.
    settings.intercept_drain = std::chrono::seconds{plan.config.canary * 2};
  }
  settings.agent = plan.agent ? "127.0.0.1:9100" : "";
  if (plan.cgroups) {
    settings.cgroup_memory = 1;
    settings.cgroup_places = {"memory 1 " + std::string(kPoolGroup)};
  }
  settings.command_socket_as_fd = plan.command_as_fd;
  if (plan.probe == "command") {
    settings.probe_command = "check {index} {pid}";
  } else if (!plan.probe.empty()) {
    settings.probe = plan.probe == "tcp" ? "tcp" : "http://{addr}/health";
    settings.probe_address = "127.0.0.1:{9100+index}";
  }
  snapshot.config = plan.config;
  settings.hook_timeout = std::chrono::seconds{8};
  settings.hook_upgrade_timeout = std::chrono::seconds{15};
  if (plan.hooks != 0) {
    settings.hooks.resize(pool::kHooks.size() + 1);
    for (std::size_t i = 0; i < pool::kHooks.size(); ++i) {
      if ((plan.hooks >> i & 1U) != 0) {
        settings.hooks[i + 1] = {"hook"};
      }
    }
  }
  wire::Program program;
  program.directory = "/releases/0";
  program.path = "/usr/bin/server";
  program.arguments = {"/usr/bin/server"};
  program.environment = {"PATH=/usr/bin"};
  if (plan.preload) {
    settings.preload = "app.py";
    settings.preload_timeout = Zygotes::kLoads;
    program.zygote = "/usr/bin/python3";
    program.zygote_arguments = {"python3", "/usr/share/einhorn/preload/preload.py", "app.py"};
  }
  snapshot.programs[Version{0}] = program;
  for (std::uint32_t i = 0; i < plan.listeners; ++i) {
    wire::ListenerRecord& listener = snapshot.listeners[i];
    listener.index = i;
    listener.text = "127.0.0.1:" + std::to_string(80 + i);
    listener.address = listener.text;
  }
  return snapshot;
}

}  // namespace

Simulation::Simulation(std::uint64_t seed, std::FILE* out)
    : world_(seed, out),
      command_(std::make_shared<Listener>(world_.census)),
      notify_(std::make_shared<DatagramSocket>(world_.census)),
      workers_(world_, command_, notify_),
      zygotes_(world_, workers_),
      readers_(world_),
      supervisors_(world_),
      probers_(world_),
      hooks_(world_),
      clients_(world_, workers_),
      subscribers_(world_, workers_),
      guard_(world_, [this](const ProcessPtr& process,
                            FilePtr control) { start_master(process, std::move(control), false); }),
      new_guard_(world_, workers_, guard_),
      invariants_(world_, guard_) {}

Simulation::~Simulation() {
  for (const auto& master : masters_) {
    master->kernel().die();
  }
}

void Simulation::set_up() {
  world_.on_ended = [this](const ProcessPtr& process) { on_ended(process); };
  world_.on_child_ended = [this](const ProcessPtr& child) { guard_.on_child_ended(child); };
  world_.on_signal = [this](const ProcessPtr& to, int signal) {
    if (to->kind == ProcessKind::kWorker || to->kind == ProcessKind::kHelper) {
      workers_.on_signal(to, signal);
    } else if (to->kind == ProcessKind::kHook) {
      hooks_.on_signal(to, signal);
    }
  };
  world_.on_forked = [this](WorkerId worker) {
    if (world_.plan.config.hook_before_start) {
      hooks_.on_worker_started(worker);
    }
  };
  world_.strike_master = [this](std::uint64_t steps) {
    if (MasterProcess* master = acting(); master != nullptr && guard_.alive()) {
      master->kernel().strike_in(steps);
    }
  };
  if (world_.plan.cgroups) {
    world_.groups[kPoolGroup] = 0;
  }
  auto snapshot = std::make_shared<Memory>(world_.census);
  snapshot->write(Memory::kPage, wire::encode_journal(first_snapshot(world_.plan)));
  GuardProcess::Kept kept = {
      {"snapshot", std::move(snapshot)}, {"command", command_}, {"notify", notify_}};
  for (std::uint32_t i = 0; i < world_.plan.listeners; ++i) {
    kept.emplace_back("listen:" + std::to_string(i), std::make_shared<Service>(world_.census, i));
  }
  guard_.begin(world_.start_process(ProcessKind::kGuard, 1), kept, nullptr);
}

void Simulation::on_ended(const ProcessPtr& process) {
  for (const auto& master : masters_) {
    if (master->process() == process) {
      master->on_ended();
    }
  }
  workers_.forget(process);
  zygotes_.forget(process);
  readers_.forget(process);
  supervisors_.forget(process);
  probers_.forget(process);
  hooks_.forget(process);
  new_guard_.on_ended(process);
  if (process->kind != ProcessKind::kGuard && process->kind != ProcessKind::kMaster) {
    return;
  }
  note_lost_successor(process);
  // A successor that hangs does not count: with guard and master dead nobody has the snapshot.
  const bool mastered =
      std::ranges::any_of(masters_, [](const auto& master) { return !master->process()->dead; });
  if (!guard_.alive() && !mastered) {
    world_.over = true;
    lost_ = lost_ || guard_.word() < 0;
    return;
  }
  if (!guard_.alive()) {
    new_guard_.plan();
    if (world_.random.chance(990)) {
      for (const auto& master : masters_) {
        master->kernel().strike_in(0);  // with the guard dead that would mostly be the end of all
      }
    }
  }
}

// Guard and successor have died together, and an older master goes on.
void Simulation::note_lost_successor(const ProcessPtr& dead) {
  constexpr Duration kTogether = milliseconds{50};
  if (dead->kind == ProcessKind::kMaster) {
    const bool older = std::ranges::any_of(masters_, [&dead](const auto& master) {
      return master->created() && !master->process()->dead &&
             master->process()->born_at < dead->born_at;
    });
    successor_died_at_ = older ? world_.now() : successor_died_at_;
    world_.successors_lost += older && !guard_.alive() ? 1 : 0;
  } else if (successor_died_at_ && world_.now() - *successor_died_at_ < kTogether) {
    ++world_.successors_lost;
  }
}

void Simulation::live() {
  set_up();
  plan_blow();
  const Instant calm_at = world_.now() + world_.plan.chaos;
  while (!world_.over && world_.now() < calm_at && world_.trace.lines() < kMostChaos &&
         workers_.living().size() < kMostWorkers) {
    run_until(std::min(calm_at, world_.now() + milliseconds{500}));
  }
  if (!world_.over) {
    calm();
    settle();
  }
  if (!world_.over) {
    rest();
    stop();
  }
}

// --- running ------------------------------------------------------------------------------------
bool Simulation::step(Instant until) {
  world_.fail_if_reported();
  MasterProcess* next = nullptr;
  std::optional<Instant> wakes;
  for (const auto& master : masters_) {
    if (master->wants_turn()) {
      next = master.get();
      break;
    }
    const std::optional<Instant> at = master->wakes_at();
    if (at && (!wakes || *at < *wakes)) {
      wakes = at;
    }
  }
  if (next != nullptr) {
    turn(*next);
    return true;
  }
  const std::optional<Instant> event =
      world_.has_events() ? std::optional(world_.next_event()) : std::nullopt;
  if (event && *event <= until && (!wakes || *event <= *wakes)) {
    world_.run_event();
    poke();
    return true;
  }
  if (wakes && *wakes <= until) {
    world_.advance_to(*wakes);
    return true;
  }
  world_.advance_to(until);
  return false;
}

void Simulation::run_until(Instant until) {
  while (!world_.over && world_.now() <= until && step(until)) {
    forget_dead_masters();
  }
}

void Simulation::run_until_ready(SimulatedKernel& kernel, std::optional<Instant> deadline) {
  const Instant until = deadline.value_or(world_.now() + hours{1});
  while (!world_.over && !kernel.dead() && !kernel.anything_ready() && world_.now() < until &&
         step(until)) {
  }
}

void Simulation::turn(MasterProcess& master) {
  const std::uint64_t before = master.turns();
  master.turn();
  if (master.gone()) {
    if (!handed_on(master)) {
      clients_.on_master_killed();
    }
    subscribers_.on_master_killed();
  } else if (master.turns() != before) {
    invariants_.after_turn(master, workers_.living(), acting() == &master);
    if (acting() == &master) {
      zygotes_.check_loading(master.process()->born_at);
    }
    if (world_.plan.capture && master.pool() != nullptr) {
      const ProcessPtr unheard = workers_.unheard();
      world_.expect(unheard == nullptr || unnumbered_, "output",
                    "the next line of worker " + std::to_string(unheard ? unheard->pid : 0) +
                        " ends it: nobody has the pipe");
    }
  }
  poke();
}

// It has left because its successor acts, which has got all that this one had read.
bool Simulation::handed_on(const MasterProcess& master) const {
  constexpr int kExited = 1;
  const ProcessPtr& process = master.process();
  return process->ended.code == kExited && process->ended.status == 0 &&
         std::ranges::any_of(masters_, [&process](const auto& other) {
           return other->created() && !other->gone() &&
                  other->process()->born_at > process->born_at;
         });
}

void Simulation::poke() {
  guard_.poke();
  zygotes_.poke();
  new_guard_.poke();
  clients_.poke();
  readers_.poke();
  supervisors_.poke();
  probers_.poke();
}

void Simulation::forget_dead_masters() {
  std::erase_if(masters_, [](const auto& master) { return master->gone() && !master->running(); });
}

MasterProcess* Simulation::of(const SimulatedKernel& kernel) {
  for (const auto& master : masters_) {
    if (&master->kernel() == &kernel) {
      return master.get();
    }
  }
  return nullptr;
}

MasterProcess* Simulation::acting() {
  MasterProcess* found = nullptr;
  for (const auto& master : masters_) {
    if (master->gone() || !master->created()) {
      continue;
    }
    if (guard_.alive()) {
      if (master->process()->pid == guard_.master() && guard_.has_acting_master()) {
        return master.get();
      }
      continue;
    }
    // Without a guard there is one, but for a successor that is about to be ended.
    if (found != nullptr) {
      return nullptr;
    }
    found = master.get();
  }
  return found;
}

MasterProcess* Simulation::any_master() {
  std::vector<MasterProcess*> living;
  for (const auto& master : masters_) {
    if (!master->gone()) {
      living.push_back(master.get());
    }
  }
  return living.empty() ? nullptr : world_.random.pick(living);
}

// --- masters ------------------------------------------------------------------------------------
void Simulation::start_master(const ProcessPtr& process, FilePtr control, bool successor) {
  ++masters_started_;
  masters_.push_back(
      std::make_unique<MasterProcess>(world_, *this, process, std::move(control), successor));
  MasterProcess* const master = masters_.back().get();
  world_.after(world_.random.duration(milliseconds{1}, milliseconds{20}), [this, process] {
    if (!process->dead) {
      create_master(process);
    }
  });
  if (world_.faults && guard_.alive() && world_.random.chance(50)) {
    master->kernel().strike_in(1 + world_.random.below(120));  // in the middle of its start
  }
}

void Simulation::create_master(const ProcessPtr& process) {
  const auto found =
      std::find_if(masters_.begin(), masters_.end(),
                   [&process](const auto& candidate) { return candidate->process() == process; });
  MasterProcess* const master = found->get();  // others may be started while it is created
  master->create();
  if (master->created()) {
    invariants_.after_create(*master, workers_.living());
  } else {
    after_kill();
  }
}

void Simulation::on_strike(SimulatedKernel& at) {
  const bool aborts = world_.random.chance(300);
  world_.note("fault", std::string(aborts ? "abort" : "kill -9") + " of master " +
                           std::to_string(at.process()->pid) + " at a call");
  kill(*of(at), aborts ? os::Ended{3, SIGABRT} : os::Ended{2, SIGKILL});
}

void Simulation::kill(MasterProcess& master, os::Ended how) {
  world_.end(master.process(), how);
  after_kill();
}

void Simulation::after_kill() {
  clients_.on_master_killed();
  subscribers_.on_master_killed();
}

// --- Host: programs
// -------------------------------------------------------------------------------
WorkerId Simulation::worker_of(SimulatedKernel& by, const os::SpawnSpec& spec) {
  WorkerId id;
  for (const std::string& variable : spec.environment) {
    constexpr std::string_view kIndex = "EINHORN_CHILD_INDEX=";
    if (variable.starts_with(kIndex)) {
      std::from_chars(variable.data() + kIndex.size(), variable.data() + variable.size(),
                      id.slot.value);
    }
  }
  if (spec.note != nullptr) {
    id.epoch = Epoch{spec.note->epoch};
    return id;
  }
  const MasterProcess* master = of(by);
  if (master->pool() != nullptr) {
    for (const pool::Worker* worker : master->pool()->workers()) {
      if (worker->id.slot == id.slot) {
        return worker->id;
      }
    }
  }
  id.epoch = Epoch{unknown_epoch_++};
  return id;
}

// It was written down before it was asked for.
WorkerId Simulation::worker_asked_for(SimulatedKernel& by, std::string_view order) {
  const std::uint64_t fork_id = Zygotes::number_behind(order, "FORK=");
  if (const auto memory = std::dynamic_pointer_cast<Memory>(by.newest(FileKind::kMemory))) {
    if (const Result<wire::Snapshot> read = wire::decode_snapshot(memory->content())) {
      for (const auto& [epoch, record] : read->workers) {
        if (record.fork_id == fork_id) {
          world_.note("process", std::to_string(by.process()->pid) + " asks zygote " +
                                     std::to_string(record.asked_of) + " for worker " +
                                     std::to_string(record.worker.id.slot.value) + ", fork " +
                                     std::to_string(fork_id));
          return record.worker.id;
        }
      }
    }
  }
  world_.expect(world_.snapshot_lossy, "persisted",
                "a zygote is asked for something that is not written down: " + std::string(order));
  const auto slot =
      static_cast<std::uint32_t>(Zygotes::number_behind(order, "EINHORN_CHILD_INDEX="));
  return {Slot{slot}, Epoch{unknown_epoch_++}};
}

Result<os::Spawned> Simulation::start_program(SimulatedKernel& by, const os::SpawnSpec& spec) {
  const auto& arguments = spec.arguments;
  for (const char* flag : {"--upgrade-check", "--with-state-fd"}) {
    if (std::find(arguments.begin(), arguments.end(), flag) != arguments.end()) {
      return start_beside(by, spec);
    }
  }
  if (Zygotes::is_one(spec)) {
    return zygotes_.start(by, spec);
  }
  if (Readers::is_reader(spec)) {
    return readers_.start(by, spec);
  }
  if (Supervisors::is_one(spec)) {
    return supervisors_.start(by, spec);
  }
  if (Probers::is_prober(spec)) {
    return probers_.start(by, spec);
  }
  if (spec.program.ends_with("/eu-stack")) {
    return start_tool(by, spec);
  }
  if (Hooks::is_one(spec)) {
    return hooks_.start(by, spec);
  }
  ++workers_started_;
  const WorkerId id = worker_of(by, spec);
  if (world_.plan.config.hook_before_start) {
    hooks_.on_worker_started(id);
  }
  const MasterProcess* master = of(by);
  invariants_.on_spawn(by, spec, id, master->pool());
  Result<os::Spawned> spawned = workers_.start(by, spec, id);
  if (spawned && id.epoch.value >= kUnknownEpochs) {
    unnumbered_ = true;
    world_.find(spawned->pid)->known = false;
  }
  return spawned;
}

// What takes the stack of a worker that hangs: quick, slow, failing, hanging.
Result<os::Spawned> Simulation::start_tool(SimulatedKernel& by, const os::SpawnSpec& spec) {
  if (world_.no_processes && world_.random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const ProcessPtr process = world_.start_process(ProcessKind::kHelper, by.own_parent());
  world_.note("process", std::to_string(process->pid) + " is " + spec.program);
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  if (world_.faults && world_.random.chance(50)) {
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    world_.end(process, {1, 127});
    return spawned;
  }
  if (const auto memory = std::dynamic_pointer_cast<Memory>(by.file(spec.descriptors.at(0).from))) {
    memory->write(0, "#0  0x00007f0 read\n#1  0x00005 main\n");
  }
  if (!world_.faults || world_.random.chance(800)) {
    world_.after(world_.random.skewed(milliseconds{5}, milliseconds{4000}), [this, process] {
      if (!process->dead) {
        world_.end(process, {1, world_.random.chance(200) ? 1 : 0});
      }
    });
  }
  return spawned;
}

// The check that a new master would come up, and the new master.
Result<os::Spawned> Simulation::start_beside(SimulatedKernel& by, const os::SpawnSpec& spec) {
  const bool bad = world_.faults && world_.plan.bad_checks && world_.random.chance(300);
  if (world_.no_processes && world_.random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const bool check = spec.descriptors.empty();
  const ProcessPtr process =
      world_.start_process(check ? ProcessKind::kCheck : ProcessKind::kMaster, by.own_parent());
  process->program = world_.program;
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  world_.note("process", std::to_string(process->pid) + (check ? " checks" : " is a successor") +
                             (bad ? ", a bad one" : ""));
  if (bad && world_.random.chance(300)) {
    world_.end(process, {1, 127});
    if (world_.random.chance(500)) {
      spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    }
    return spawned;
  }
  const Duration soon = world_.random.skewed(milliseconds{1}, milliseconds{400});
  if (!check && !bad) {
    start_master(process, by.file(spec.descriptors[0].from), true);
    return spawned;
  }
  if (bad && world_.random.chance(300)) {
    return spawned;  // hangs; its end of the socket pair is the one it was given
  }
  world_.after(soon, [this, process, bad] { world_.end(process, {1, bad ? 1 : 0}); });
  return spawned;
}

void Simulation::on_master_signals(SimulatedKernel& by, const ProcessPtr& to, int signal,
                                   bool by_pidfd) {
  invariants_.on_signal(by, to, signal, by_pidfd, of(by)->pool());
}

void Simulation::on_master_writes(SimulatedKernel& by, std::string_view bytes) {
  invariants_.on_answer(bytes, of(by)->pool());
}

void Simulation::on_master_reads(std::string_view snapshot) {
  invariants_.on_read(snapshot, workers_.living());
}

void Simulation::finish(Outcome& outcome) const {
  outcome.hash = world_.trace.hash();
  outcome.lines = world_.trace.lines();
  outcome.last = world_.trace.last();
  outcome.masters = masters_started_;
  outcome.workers = workers_started_ + zygotes_.forked();
  outcome.lived = world_.now() - Instant{Duration{1'000'000'000'000}};
}

Outcome simulate(std::uint64_t seed, std::FILE* out) {
  Outcome outcome;
  Simulation simulation(seed, out);
  try {
    simulation.live();
  } catch (const Violation& violation) {
    outcome.held = false;
    outcome.invariant = violation.invariant;
    outcome.what = violation.what;
  }
  simulation.finish(outcome);
  return outcome;
}

}  // namespace einhorn::sim
