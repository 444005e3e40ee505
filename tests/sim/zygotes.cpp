#include "sim/zygotes.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <vector>

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr std::string_view kVariable = "EINHORN_ZYGOTE_FD=";
// By the pid, so that other lives stay what they are: a zygote in so many hangs while it loads, a
// worker in so many is slow to say that it was forked, and at the word of one in so many the master
// is about to die.
constexpr Pid kHanging = 17;
constexpr Pid kSlowForks = 29;
constexpr Pid kStruckWords = 13;
constexpr Duration kUnloadedEnds = seconds{2};

}  // namespace

std::uint64_t Zygotes::number_behind(std::string_view text, std::string_view name) {
  std::uint64_t number = 0;
  const std::size_t at = text.find(name);
  if (at != std::string_view::npos) {
    std::from_chars(text.data() + at + name.size(), text.data() + text.size(), number);
  }
  return number;
}

bool Zygotes::is_one(const os::SpawnSpec& spec) {
  return std::any_of(spec.environment.begin(), spec.environment.end(),
                     [](const std::string& variable) { return variable.starts_with(kVariable); });
}

Result<os::Spawned> Zygotes::start(SimulatedKernel& by, const os::SpawnSpec& spec) {
  Random& random = world_.random;
  if (world_.no_processes && random.chance(700)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const ProcessPtr process =
      world_.start_process(ProcessKind::kZygote, spec.sibling ? by.own_parent() : by.own_pid());
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  if (world_.faults && random.chance(world_.plan.stage_failures)) {
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    world_.end(process, {1, 127});
    return spawned;
  }
  const auto model = std::make_shared<Model>();
  model->process = process;
  model->directory = spec.directory;
  world_.expect(!spec.descriptors.empty(), "ownership", "a zygote gets no socket");
  model->socket = std::dynamic_pointer_cast<PacketEnd>(by.file(spec.descriptors.back().from));
  world_.expect(model->socket != nullptr, "ownership", "a zygote gets the wrong socket");
  models_[process->pid] = model;
  world_.note("process", std::to_string(process->pid) + " is a zygote in " + spec.directory);
  load(model);
  return spawned;
}

void Zygotes::load(const std::shared_ptr<Model>& model) {
  Random& random = world_.random;
  const Duration soon = random.skewed(milliseconds{1}, seconds{5});
  if (world_.faults && model->process->pid % kHanging == 5) {
    return;
  }
  const bool bad = world_.faults && workers_.is_bad(model->directory);
  const bool faulty = world_.faults && random.chance(150);
  if (bad || faulty) {
    switch (random.below(6)) {
      case 0:
        end_after(model, soon, {1, 3});
        return;
      case 1:
        end_after(model, soon, {2, random.chance(500) ? SIGSEGV : SIGKILL});
        return;
      case 2:
        return;  // hangs
      case 3:
        world_.after(soon, [model] {
          if (!model->process->dead) {
            model->socket.reset();  // it has closed what was not its own
          }
        });
        return;
      default:
        world_.after(soon, [this, model] {
          if (!model->process->dead) {
            say(*model, model->process->pid, "ERRNO=22\nSTATUS=the code is broken");
            world_.end(model->process, {1, 1});
          }
        });
        return;
    }
  }
  world_.after(soon, [this, model] {
    if (!model->process->dead) {
      model->ready = true;
      say(*model, model->process->pid, "READY=1");
      poke();
    }
  });
  if (world_.faults && random.chance(300)) {
    end_after(model, random.duration(milliseconds{1}, minutes{1}), {2, SIGKILL});
  }
}

void Zygotes::end_after(const std::shared_ptr<Model>& model, Duration delay, os::Ended how) {
  world_.after(delay, [this, model, how] {
    if (!model->process->dead && world_.faults) {
      world_.note("fault", "zygote " + std::to_string(model->process->pid) + " ends");
      world_.end(model->process, how);
    }
  });
}

void Zygotes::say(const Model& model, Pid sender, const std::string& text) {
  if (model.socket != nullptr) {
    model.socket->send({text, {}, {sender, 0, 0}, {}});
  }
}

void Zygotes::poke() {
  std::vector<std::shared_ptr<Model>> all;
  for (const auto& [pid, model] : models_) {
    all.push_back(model);
  }
  for (const auto& model : all) {
    if (!model->planned && model->socket != nullptr && !model->process->dead && model->ready &&
        !model->silent && model->socket->readable()) {
      model->planned = true;
      world_.after(world_.random.skewed(microseconds{10}, milliseconds{20}), [this, model] {
        model->planned = false;
        if (!model->process->dead && model->socket != nullptr) {
          serve(model);
        }
      });
    } else if (!model->planned && model->socket != nullptr && !model->process->dead &&
               !model->ready && model->socket->readable()) {
      Packet packet;  // nobody asks before it is ready: this is the end of its master's side
      if (model->socket->receive(packet) == Kind::kClosed) {
        model->planned = true;
        world_.after(seconds{1}, [this, model] { world_.end(model->process, {1, 0}); });
      }
    }
  }
}

void Zygotes::serve(const std::shared_ptr<Model>& model) {
  Packet packet;
  const Kind kind = model->socket->receive(packet);
  if (kind == Kind::kClosed) {
    world_.end(model->process, {1, 0});
    return;
  }
  if (kind == Kind::kDone) {
    fork(model, packet);
  }
  poke();
}

void Zygotes::fork(const std::shared_ptr<Model>& model, const Packet& order) {
  Random& random = world_.random;
  const std::uint64_t id = number_behind(order.text, "FORK=");
  if (id <= model->last) {
    world_.expect(
        model->asked.contains(id) || world_.snapshots_lost + world_.successors_lost > 0, "in-order",
        "zygote " + std::to_string(model->process->pid) + " is asked for " + std::to_string(id) +
            " after " + std::to_string(model->last) + ", and ignores it");
    return;  // said again by a new master
  }
  model->last = id;
  model->asked.insert(id);
  if (world_.faults && random.chance(20)) {
    model->silent = true;
    return;
  }
  if ((world_.no_processes && random.chance(700)) || (world_.faults && random.chance(20))) {
    say(*model, model->process->pid,
        "FAILED=" + std::to_string(id) + "\nERRNO=11\nSTATUS=fork: try again");
    return;
  }
  const WorkerId worker = order.asked_for;
  // A child of whoever is above the zygote, by the death of the process in between.
  const ProcessPtr process = world_.start_process(ProcessKind::kWorker, model->process->pid);
  process->parent = world_.heir_of(process);
  process->group = model->process->group;
  process->worker = worker;
  process->known = false;
  process->lost = worker.epoch.value >= kUnknownEpochs;
  process->forked = true;
  ++forked_;
  world_.note("process", std::to_string(process->pid) + " is forked by zygote " +
                             std::to_string(model->process->pid));
  if (world_.on_forked) {
    world_.on_forked(worker);
  }
  const auto socket = model->socket;  // its own copy
  const bool connects = order.text.find("\nCONNECT=") != std::string::npos;
  const std::string directory = model->directory;
  Duration delay = random.skewed(microseconds{10}, milliseconds{5});
  if (world_.faults && process->pid % kSlowForks == 0) {
    delay = milliseconds{process->pid * 97 % 15'000};
  }
  world_.after(delay, [this, process, socket, id, directory, connects] {
    if (process->dead) {
      return;
    }
    process->group = process->pid;
    const std::shared_ptr<Stream> link = connects ? workers_.connect(process->pid, 4096) : nullptr;
    process->born_with = link;
    if (socket->send({"FORKED=" + std::to_string(id), {}, {process->pid, 0, 0}, {}}) !=
        Kind::kDone) {
      world_.end(process, {1, 1});
      return;
    }
    process->word = socket->sent();
    if (world_.faults && process->pid % kStruckWords == 1) {
      world_.strike_master(1 + process->pid / kStruckWords % 12);  // while it takes that down
    }
    workers_.adopt(process, directory, link);
  });
  if (world_.faults && random.chance(30)) {
    end_after(model, random.skewed(Duration::zero(), milliseconds{5}), {2, SIGKILL});
  }
}

void Zygotes::forget(const ProcessPtr& dead) {
  const auto found = models_.find(dead->pid);
  if (found != models_.end() && found->second->process == dead) {
    found->second->socket.reset();
    models_.erase(found);
  }
}

void Zygotes::check_loading(Instant acts_since) const {
  if (world_.snapshots_lost + world_.successors_lost > 0) {
    return;  // perhaps it could not be written down that there is one
  }
  for (const auto& [pid, model] : models_) {
    const Instant since = std::max(acts_since, model->process->born_at);
    // Who has closed its socket can't be told from a stranger once its guard is gone.
    const bool stranger = model->socket == nullptr && model->process->parent != world_.guard_pid();
    world_.expect(model->ready || model->process->dead || stranger ||
                      world_.now() < since + kLoads + kUnloadedEnds,
                  "in-time", "zygote " + std::to_string(pid) + " does not load and is not ended");
  }
}

void Zygotes::clear() { models_.clear(); }

}  // namespace einhorn::sim
