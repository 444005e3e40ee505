// What a master asks of its kernel about processes: starting, signalling, reaping and measuring them.
#include <algorithm>
#include <cerrno>
#include <csignal>

#include "sim/simulated_kernel.h"

namespace einhorn::sim {

std::optional<Error> refusal(const os::SpawnSpec& spec) {
  constexpr std::size_t kLongestArgument = 128 * 1024;
  for (const auto* texts : {&spec.arguments, &spec.environment}) {
    for (const std::string& text : *texts) {
      if (text.size() >= kLongestArgument) {
        return Error{E2BIG, "exec " + spec.program, ""};
      }
    }
  }
  return std::nullopt;
}

Result<os::Spawned> SimulatedKernel::spawn(const os::SpawnSpec& spec) {
  if (dead_) {
    return Error{EAGAIN, "spawn", ""};
  }
  step();
  act("spawn");
  Result<os::Spawned> spawned = host_.start_program(*this, spec);
  step();
  return spawned;
}

bool SimulatedKernel::signal(int pidfd, Pid pid, int signal, bool group) {
  if (dead_ || pid <= 1) {
    return false;
  }
  step();
  ProcessPtr target = pidfd >= 0 ? get<Pidfd>(pidfd, "signal")->process : world_.find(pid);
  if (target != nullptr && target->reaped) {
    target = nullptr;
  }
  host_.on_master_signals(*this, target, signal, pidfd >= 0);
  if (target == nullptr) {
    return false;
  }
  world_.note("signal", std::to_string(signal) + (group ? " to the group of " : " to ") +
                            std::to_string(target->pid));
  world_.deliver(target, signal, group);
  step();
  return true;
}

std::optional<int> SimulatedKernel::open_process(Pid pid, Pid parent) {
  if (dead_) {
    return std::nullopt;
  }
  step();
  const ProcessPtr process = world_.find(pid);
  if (process == nullptr || (parent != 0 && process->parent != parent)) {
    return std::nullopt;
  }
  return adopt(std::make_shared<Pidfd>(world_.census, process));
}

bool SimulatedKernel::is_dead(int pidfd) {
  if (dead_ || pidfd < 0) {
    return false;
  }
  return get<Pidfd>(pidfd, "is_dead")->process->dead;
}

std::optional<os::Ended> SimulatedKernel::reap(Pid pid) {
  const ProcessPtr process = dead_ ? nullptr : world_.find(pid);
  if (process == nullptr || process->parent != self_->pid || !process->dead) {
    return std::nullopt;
  }
  const os::Ended how = process->ended;
  world_.reap(process);
  return how;
}

Pid SimulatedKernel::parent_of(Pid pid) {
  const ProcessPtr process = world_.find(pid);
  return process == nullptr ? 0 : process->parent;
}

bool SimulatedKernel::runs_as(Pid pid, std::uint32_t uid) {
  return world_.find(pid) != nullptr && uid == own_uid();
}

std::optional<os::MemoryUse> SimulatedKernel::memory_of(Pid pid) {
  const ProcessPtr process = world_.find(pid);
  if (process == nullptr) {
    return std::nullopt;
  }
  const auto lived = static_cast<std::uint64_t>(to_seconds(world_.now() - process->born_at));
  return os::MemoryUse{(std::uint64_t{1} << 20U) + lived * process->grows};
}

// Workers are as busy as connections wait.
std::optional<Duration> SimulatedKernel::cpu_time_of(Pid pid) {
  const ProcessPtr process = world_.find(pid);
  if (process == nullptr) {
    return std::nullopt;
  }
  const Duration lived = world_.now() - process->born_at;
  return world_.queued > 0 ? lived : lived / 100;
}

// Some things can't be read, as by somebody who may not.
std::optional<os::Measured> SimulatedKernel::measure(Pid pid, const os::Wanted& wanted) {
  const ProcessPtr process = world_.find(pid);
  if (process == nullptr || process->dead) {
    return std::nullopt;
  }
  step();
  const std::uint64_t resident = memory_of(pid)->resident_bytes;
  const double lived = to_seconds(world_.now() - process->born_at);
  os::Measured measured;
  if (wanted.resident) {
    measured.resident_bytes = resident;
  }
  if (wanted.proportional) {
    measured.proportional_bytes = resident / 2;
  }
  if (wanted.cpu) {
    measured.cpu = from_seconds(lived * (process->grows > 0 ? 0.9 : 0.05));
  }
  if (wanted.threads) {
    measured.threads = 1;
  }
  if (wanted.descriptors && process->kind == ProcessKind::kWorker) {
    measured.descriptors = 8;
  }
  return measured;
}

std::optional<os::MemoryShares> SimulatedKernel::shares_of(Pid pid) {
  const std::optional<os::MemoryUse> use = memory_of(pid);
  return use ? std::optional(os::MemoryShares{use->resident_bytes, 0}) : std::nullopt;
}

}  // namespace einhorn::sim
