#include "sim/workers.h"

#include <cerrno>
#include <charconv>
#include <csignal>

namespace einhorn::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr os::Ended kExitedWell{1, 0};
constexpr std::string_view kReleases = "/releases/";
constexpr Pid kConfused = 8;      // one in so many tells the pid of another one
constexpr Pid kSlowSpeakers = 4;  // one in so many workers connects, and speaks only later

bool is_stop_signal(int signal) {
  return signal == SIGUSR2 || signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
}

}  // namespace

Result<std::string> Workers::deploy() {
  if (world_.faults && world_.random.chance(30)) {
    return Error{ENOENT, "directory /srv/app", ""};
  }
  const bool bad = world_.faults && world_.random.chance(world_.plan.bad_versions);
  releases_.push_back(!bad                        ? Release::kGood
                      : world_.random.chance(200) ? Release::kMissing
                                                  : Release::kBad);
  return std::string(kReleases) + std::to_string(releases_.size() - 1);
}

Behaviour Workers::choose(const std::string& directory) {
  if (!world_.faults) {
    return Behaviour::kHealthy;
  }
  const std::size_t release = release_of(directory);
  if (release < releases_.size() && releases_[release] == Release::kBad &&
      world_.random.chance(900)) {
    return world_.random.pick<Behaviour>({Behaviour::kCrashAtStart, Behaviour::kNeverAck,
                                          Behaviour::kCrashAfterAck, Behaviour::kCrashLater});
  }
  return world_.random.pick(world_.plan.behaviours);
}

std::size_t Workers::release_of(const std::string& directory) {
  std::size_t release = 0;
  if (directory.starts_with(kReleases)) {
    std::from_chars(directory.data() + kReleases.size(), directory.data() + directory.size(),
                    release);
  }
  return release;
}

bool Workers::is_missing(const std::string& directory) const {
  const std::size_t release = release_of(directory);
  return release < releases_.size() && releases_[release] == Release::kMissing;
}

// Any step between the clone and the program, with what it may say.
Error Workers::failed_stage(const os::SpawnSpec& spec) {
  switch (world_.random.below(8)) {
    case 0:
      return {EPERM, "setpgid", ""};
    case 1:
      return {EACCES, "nice", ""};
    case 2:
      return {ESRCH, "watch parent", ""};
    case 3:
      return {ENOENT, "chdir " + spec.directory, ""};
    case 4:
      return {EMFILE, "pass descriptors", ""};
    case 5:
      return {E2BIG, "exec " + spec.program, ""};
    case 6:
      return {ENOENT, "exec " + spec.program, ""};
    default:
      return {ENOMEM, "exec " + spec.program, ""};
  }
}

Workers::Model* Workers::find(const ProcessPtr& worker) {
  const auto found = models_.find(worker->pid);
  return found != models_.end() && found->second.process == worker ? &found->second : nullptr;
}

std::vector<ProcessPtr> Workers::living() const {
  std::vector<ProcessPtr> living;
  for (const auto& [pid, model] : models_) {
    if (!model.process->dead) {
      living.push_back(model.process);
    }
  }
  return living;
}

ProcessPtr Workers::unheard() const {
  for (const auto& [pid, model] : models_) {
    const bool unheard = std::ranges::any_of(model.output, [](const auto& output) {
      return output != nullptr && !output->has_reader();
    });
    if (!model.process->dead && model.process->known && unheard) {
      return model.process;
    }
  }
  return nullptr;
}

std::shared_ptr<Stream> Workers::connect(Pid pid, std::size_t capacity, std::uint32_t user) {
  if (command_->waiting.size() >= Listener::kBacklog) {
    return nullptr;
  }
  auto [ours, theirs] = Stream::pair(world_.census, {pid, user, user}, capacity);
  command_->waiting.push_back(std::move(theirs));
  return ours;
}

Result<os::Spawned> Workers::start(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id) {
  Random& random = world_.random;
  if (world_.no_processes && random.chance(700)) {
    return Error{random.chance(500) ? EAGAIN : ENOMEM, "spawn " + spec.program, ""};
  }
  const ProcessPtr process =
      world_.start_process(ProcessKind::kWorker, spec.sibling ? by.own_parent() : by.own_pid());
  process->worker = id;
  process->starter = by.process();
  if (spec.note != nullptr) {
    spec.note->pid = process->pid;
  }
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  std::shared_ptr<Stream> link;
  if (!spec.connect_to.empty()) {
    link = connect(process->pid, 4096);
    if (link == nullptr) {
      spawned.failed = Error{EAGAIN, "connect " + spec.connect_to, ""};
    }
  }
  if (!spawned.failed) {
    spawned.failed = refusal(spec);
  }
  if (world_.faults && !spawned.failed &&
      (random.chance(world_.plan.stage_failures) || is_missing(spec.directory))) {
    spawned.failed = failed_stage(spec);
  }
  if (spawned.failed) {
    world_.note("process", std::to_string(process->pid) + " could not exec");
    world_.end(process, {1, 127});
    return spawned;
  }
  std::shared_ptr<Notify> notify;
  if (spec.intercept) {
    notify = std::make_shared<Notify>(world_.census, process);
    spawned.notify = by.adopt(notify);
  }
  const Behaviour behaviour = choose(spec.directory);
  world_.note("process", std::to_string(process->pid) + " is worker " +
                             std::to_string(id.slot.value) + " of epoch " +
                             std::to_string(id.epoch.value) + " in " + spec.directory +
                             ", behaviour " + std::to_string(static_cast<int>(behaviour)));
  if (world_.faults && random.chance(world_.plan.dead_on_return)) {
    world_.end(process, {1, 3});
    return spawned;
  }
  process->born_with = link;
  Model& model = models_[process->pid] = {process, behaviour, std::move(link), {}, {}, {}, false};
  model.notify = notify;
  for (const int fd : {spec.output, spec.error_output}) {
    if (fd >= 0) {
      model.output.push_back(std::dynamic_pointer_cast<OutputEnd>(by.file(fd)));
    }
  }
  for (const std::string& file : spec.cgroups) {
    const std::string group = file.substr(0, file.rfind('/'));
    world_.expect(world_.groups.contains(group), "groups", group + " is not there to be joined");
    model.groups.push_back(std::make_shared<Membership>(world_.groups, group));
  }
  live(process, behaviour);
  if (const auto& timeout = world_.plan.config.health.ping_timeout) {
    ping_every(process, *timeout / 4);
  }
  return spawned;
}

void Workers::adopt(const ProcessPtr& process, const std::string& directory,
                    std::shared_ptr<Stream> link) {
  const Behaviour behaviour = choose(directory);
  world_.note("process", std::to_string(process->pid) + " is worker " +
                             std::to_string(process->worker.slot.value) + " of epoch " +
                             std::to_string(process->worker.epoch.value) + ", behaviour " +
                             std::to_string(static_cast<int>(behaviour)));
  if (world_.faults && world_.random.chance(world_.plan.dead_on_return)) {
    world_.end(process, {1, 3});
    return;
  }
  Model& model = models_[process->pid];
  model.process = process;
  model.behaviour = behaviour;
  model.link = std::move(link);
  live(process, behaviour);
}

bool Workers::is_bad(const std::string& directory) const {
  const std::size_t release = release_of(directory);
  return release < releases_.size() && releases_[release] != Release::kGood;
}

void Workers::live(const ProcessPtr& worker, Behaviour behaviour) {
  Random& random = world_.random;
  const Duration soon = random.duration(milliseconds{1}, milliseconds{500});
  switch (behaviour) {
    case Behaviour::kSlowAck:
      ack(worker, random.duration(seconds{2}, seconds{60}));
      return;
    case Behaviour::kNeverAck:
      return;
    case Behaviour::kCrashAtStart:
      end_after(worker, random.skewed(Duration::zero(), milliseconds{300}),
                random.chance(500) ? os::Ended{1, 1} : os::Ended{2, SIGSEGV}, true);
      return;
    case Behaviour::kCrashLater:
      ack(worker, soon);
      end_after(worker, random.duration(milliseconds{200}, minutes{1}), {3, SIGABRT}, true);
      return;
    case Behaviour::kCrashAfterAck:
      ack(worker, soon);
      end_after(worker, soon + random.skewed(Duration::zero(), seconds{2}), {1, 7}, true);
      return;
    case Behaviour::kFork:
      ack(worker, soon);
      fork_and_exit(worker, random.duration(seconds{1}, seconds{20}));
      return;
    case Behaviour::kLeak:
      ack(worker, soon);
      worker->grows = std::uint64_t{1} << (20 + random.below(10));
      end_after(worker, random.duration(seconds{5}, minutes{2}), {2, SIGKILL}, true);
      return;
    case Behaviour::kStall:
    case Behaviour::kSlow:
      ack(worker, soon);
      stall_at(worker, soon + random.duration(milliseconds{10}, seconds{40}));
      return;
    case Behaviour::kHealthy:
    case Behaviour::kHang:
    case Behaviour::kDrain:
      ack(worker, soon);
      return;
  }
}

// From the loop that serves: who stalls does not ping, and who is busy does.
void Workers::ping_every(const ProcessPtr& worker, Duration interval) {
  world_.after(interval, [this, worker, interval] {
    const Model* model = find(worker);
    if (worker->dead || model == nullptr || model->stalled) {
      return;
    }
    if (worker->said_up) {
      ping(worker);
    }
    ping_every(worker, interval);
  });
}

void Workers::stall_at(const ProcessPtr& worker, Duration delay) {
  world_.after(delay, [this, worker] {
    Model* model = find(worker);
    if (worker->dead || model == nullptr || !world_.faults) {
      return;
    }
    world_.note("process", std::to_string(worker->pid) + " stalls");
    if (model->behaviour == Behaviour::kSlow) {
      send_line(worker, "{\"command\":\"worker:ping\",\"pid\":" + std::to_string(worker->pid) +
                            ",\"request_id\":\"slow\",\"busy\":true}\n");
    } else {
      model->stalled = true;
      worker->stalled_at = world_.now();
    }
  });
}

ProcessPtr Workers::stall_one() {
  for (auto& [pid, model] : models_) {
    if (!model.process->dead && model.process->known && model.process->said_up && !model.stopping &&
        !model.stalled) {
      model.stalled = true;
      model.process->stalled_at = world_.now();
      world_.note("process", std::to_string(pid) + " stalls");
      return model.process;
    }
  }
  return nullptr;
}

void Workers::end_after(const ProcessPtr& worker, Duration delay, os::Ended how, bool fault) {
  world_.after(delay, [this, worker, how, fault] {
    if (!worker->dead && (world_.faults || !fault)) {
      world_.note("process", std::to_string(worker->pid) + " ends");
      world_.end(worker, how);
    }
  });
}

// A child that outlives the worker becomes the guard's.
void Workers::fork_and_exit(const ProcessPtr& worker, Duration delay) {
  world_.after(delay, [this, worker] {
    if (worker->dead || !world_.faults) {
      return;
    }
    const ProcessPtr child = world_.start_process(ProcessKind::kHelper, worker->pid);
    child->group = worker->group;
    if (const Model* model = find(worker)) {
      LeftBehind& left = left_behind_[child->pid];
      left.output = model->output;
      for (const auto& group : model->groups) {
        left.groups.push_back(std::make_shared<Membership>(world_.groups, group->directory()));
      }
    }
    world_.note("process",
                std::to_string(worker->pid) + " leaves " + std::to_string(child->pid) + " behind");
    end_after(child, world_.random.duration(milliseconds{1}, minutes{1}), kExitedWell, false);
    world_.end(worker, kExitedWell);
  });
}

void Workers::ack(const ProcessPtr& worker, Duration delay) {
  world_.after(delay, [this, worker] {
    if (!worker->dead) {
      say(worker);
    }
  });
}

void Workers::say(const ProcessPtr& worker) {
  worker->said_up = true;
  switch (world_.plan.config.ack_mode) {
    case pool::AckMode::kTimer:
      return;
    case pool::AckMode::kListen:
      bind(worker);
      return;
    case pool::AckMode::kManual:
      say_for_another(worker);
      send_line(worker,
                "{\"command\":\"worker:ack\",\"pid\":" + std::to_string(worker->pid) + "}\n");
      return;
    case pool::AckMode::kNotify:
      break;
  }
  if (notify_->waiting.size() >= DatagramSocket::kMost) {
    ack(worker, milliseconds{100});  // a datagram socket without room makes its senders wait
    return;
  }
  notify_->waiting.push_back({"READY=1\nSTATUS=up\n", {worker->pid, 0, 0}});
}

// Some tell the pid of somebody else, who has not said yet that it is up.
void Workers::say_for_another(const ProcessPtr& worker) {
  if (worker->pid % kConfused != 1 || !world_.faults) {
    return;
  }
  const std::vector<ProcessPtr> all = living();
  const auto silent = std::ranges::find_if(
      all, [](const ProcessPtr& other) { return other->known && !other->said_up; });
  const std::shared_ptr<Stream> stream = silent == all.end() ? nullptr : connect(worker->pid, 4096);
  if (stream != nullptr) {
    (*silent)->spoken_for_by.push_back(worker);
    stream->write("{\"command\":\"worker:ack\",\"pid\":" + std::to_string((*silent)->pid) + "}\n");
    world_.after(seconds{1}, [stream] {});
  }
}

// Whoever nobody can answer any more is told so, and leaves.
void Workers::bind(const ProcessPtr& worker) {
  Model* model = find(worker);
  if (model == nullptr) {
    return;
  }
  if (const std::shared_ptr<Notify> notify = model->notify.lock()) {
    notify->asks = true;
  } else {
    end_after(worker, milliseconds{1}, {1, 1}, false);
  }
}

void Workers::ping(const ProcessPtr& worker) {
  if (const Model* model = find(worker); model != nullptr && model->stalled) {
    return;
  }
  // After the last fault without a connection, which could be the last thing that is open.
  if (world_.random.chance(500) && world_.faults) {
    send_line(worker, "{\"command\":\"worker:ping\",\"pid\":" + std::to_string(worker->pid) +
                          ",\"request_id\":\"r" + std::to_string(world_.random.below(1000)) +
                          "\"}\n");
  } else if (notify_->waiting.size() < DatagramSocket::kMost) {
    notify_->waiting.push_back(
        {"WATCHDOG=1\nSTATUS=busy " + std::to_string(world_.random.below(100)),
         {worker->pid, 0, 0}});
  }
}

// By the worker itself, or by a helper that it runs for this and that may be gone before it is
// heard.
void Workers::send_line(const ProcessPtr& worker, const std::string& line) {
  ProcessPtr from = worker;
  const bool by_helper = world_.random.chance(300);
  if (by_helper) {
    from = world_.start_process(ProcessKind::kHelper, worker->pid);
    from->group = worker->group;
  }
  std::shared_ptr<Stream> stream = connect(from->pid, 4096);
  if (by_helper) {
    end_after(from, world_.random.skewed(Duration::zero(), milliseconds{20}), kExitedWell, false);
  }
  if (stream == nullptr) {
    world_.after(milliseconds{100}, [this, worker, line] {
      if (!worker->dead) {
        send_line(worker, line);
      }
    });
    return;
  }
  // Closed at once, or when the answer (its end) may have come.
  const Duration patience = world_.random.skewed(Duration::zero(), seconds{5});
  const auto speak = [this, stream, line, patience] {
    stream->write(line);
    world_.after(patience, [stream] {});
  };
  if (by_helper || worker->pid % kSlowSpeakers != 0 || !world_.faults) {
    speak();
    return;
  }
  if (worker->silent.expired()) {
    worker->silent = stream;  // of several the first one is kept
  }
  world_.after(milliseconds{worker->pid * 37 % 3000}, [worker, speak] {
    worker->silent.reset();
    if (!worker->dead) {
      speak();
    }
  });
}

void Workers::on_signal(const ProcessPtr& worker, int signal) {
  Model* model = find(worker);
  if (model == nullptr || !is_stop_signal(signal)) {
    if (worker->kind != ProcessKind::kWorker && is_stop_signal(signal)) {
      world_.end(worker, {2, signal});
    }
    return;
  }
  Random& random = world_.random;
  if (world_.now() - worker->born_at < milliseconds{3}) {
    world_.end(worker, {2, signal});  // it has not yet said that it wants to handle it
    return;
  }
  model->stopping = true;
  if (!world_.faults || (model->behaviour != Behaviour::kHang && !model->stalled)) {
    const bool slow = model->behaviour == Behaviour::kDrain && world_.faults;
    end_after(worker,
              slow ? random.duration(minutes{1}, minutes{8})
                   : random.skewed(milliseconds{1}, milliseconds{900}),
              kExitedWell, false);
  }
}

void Workers::forget(const ProcessPtr& dead) {
  if (find(dead) != nullptr) {
    models_.erase(dead->pid);
  }
  if (dead->kind == ProcessKind::kHelper) {
    left_behind_.erase(dead->pid);
  }
}

void Workers::calm() {
  for (auto& [pid, model] : models_) {
    if (model.stopping && !model.process->dead) {
      end_after(model.process, world_.random.duration(milliseconds{1}, seconds{30}), kExitedWell,
                false);
    }
  }
}

void Workers::clear() {
  models_.clear();
  left_behind_.clear();
}

}  // namespace einhorn::sim
