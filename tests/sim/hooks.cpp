#include "sim/hooks.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <string_view>

namespace einhorn::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::string_view kVariable = "EINHORN_HOOK=";

std::string_view variable(const os::SpawnSpec& spec, std::string_view name) {
  for (const std::string& one : spec.environment) {
    if (one.starts_with(name)) {
      return std::string_view(one).substr(name.size());
    }
  }
  return {};
}

}  // namespace

bool Hooks::is_one(const os::SpawnSpec& spec) { return !variable(spec, kVariable).empty(); }

Result<os::Spawned> Hooks::start(SimulatedKernel& by, const os::SpawnSpec& spec) {
  Random& random = world_.random;
  if (world_.no_processes && random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  ++started_;
  const ProcessPtr process =
      world_.start_process(ProcessKind::kHook, spec.sibling ? by.own_parent() : by.own_pid());
  const std::string_view hook = variable(spec, kVariable);
  world_.note("process", std::to_string(process->pid) + " is a hook, " + std::string(hook));
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  if (world_.faults && random.chance(50)) {
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    world_.end(process, {1, 127});
    return spawned;
  }
  const auto output = std::dynamic_pointer_cast<OutputEnd>(by.file(spec.output));
  world_.expect(output != nullptr, "ownership", "a hook has nothing to write to");
  outputs_[process->pid] = output;
  if (hook == "before-start") {
    std::uint32_t slot = 0;
    const std::string_view index = variable(spec, "EINHORN_HOOK_INDEX=");
    std::from_chars(index.data(), index.data() + index.size(), slot);
    before_start_[process->pid] = slot;
  }
  const bool bad = world_.faults && random.chance(300);
  if (!bad) {
    end_after(process, random.skewed(Duration::zero(), seconds{3}), {1, 0});
    return spawned;
  }
  if (random.chance(300)) {
    deaf_.insert(process->pid);
  }
  switch (random.below(4)) {
    case 0:
      end_after(process, random.skewed(Duration::zero(), seconds{20}), {1, 1});
      break;
    case 1:
      end_after(process, random.skewed(Duration::zero(), seconds{5}), {2, SIGKILL});
      break;
    case 2:
      end_after(process, random.duration(seconds{1}, seconds{30}), {1, 0});
      break;
    default:
      break;  // hangs
  }
  return spawned;
}

void Hooks::end_after(const ProcessPtr& process, Duration delay, os::Ended how) {
  world_.after(delay, [this, process, how] {
    if (process->dead) {
      return;
    }
    const auto found = before_start_.find(process->pid);
    if (found != before_start_.end() && how.code == 1 && how.status == 0) {
      passed_.insert(found->second);
    }
    world_.end(process, how);
  });
}

void Hooks::on_signal(const ProcessPtr& hook, int signal) {
  if (!deaf_.contains(hook->pid)) {
    end_after(hook, world_.random.skewed(Duration::zero(), milliseconds{100}), {2, signal});
  }
}

void Hooks::on_worker_started(WorkerId worker) {
  const std::uint32_t slot = worker.slot.value;
  const auto last = last_.find(slot);
  const bool again = last != last_.end() && last->second == worker.epoch;
  world_.expect(passed_.erase(slot) > 0 || again, "hooked",
                "a worker of slot " + std::to_string(slot) +
                    " is started, and its hook before-start has not ended well");
  last_[slot] = worker.epoch;
}

void Hooks::forget(const ProcessPtr& dead) {
  if (dead->kind == ProcessKind::kHook) {
    outputs_.erase(dead->pid);
    before_start_.erase(dead->pid);
    deaf_.erase(dead->pid);
  }
}

}  // namespace einhorn::sim
