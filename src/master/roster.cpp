#include "master/roster.h"

namespace einhorn::master {
namespace {

constexpr int kMaxGenerations = 32;  // between a worker and a process that speaks for it

}  // namespace

Roster::~Roster() {
  for (const auto& process : slots_) {
    if (process && process->pidfd >= 0) {
      kernel_.close(process->pidfd);
    }
  }
}

void Roster::add(const Process& process) {
  const std::size_t slot = process.worker.slot.value;
  if (slot >= slots_.size()) {
    slots_.resize(slot + 1);
  }
  if (slots_[slot]) {
    remove(slots_[slot]->worker);
  }
  slots_[slot] = process;
  by_pid_.emplace(process.pid, process.worker);
  ++size_;
  if (process.pidfd >= 0) {
    // Without a watch (no memory in the kernel) the guard's own word still comes.
    static_cast<void>(kernel_.watch(process.pidfd, kWorkerToken | slot, {true, false}).has_value());
  }
}

void Roster::remove(WorkerId worker) {
  Process* process = find(worker);
  if (process == nullptr) {
    return;
  }
  const auto [begin, end] = by_pid_.equal_range(process->pid);
  for (auto it = begin; it != end; ++it) {
    if (it->second == worker) {
      by_pid_.erase(it);
      break;
    }
  }
  if (process->pidfd >= 0) {
    kernel_.unwatch(process->pidfd);
    kernel_.close(process->pidfd);
  }
  slots_[worker.slot.value].reset();
  --size_;
}

Roster::Process* Roster::find(WorkerId worker) {
  Process* process = find_slot(worker.slot.value);
  return process != nullptr && process->worker == worker ? process : nullptr;
}

Roster::Process* Roster::find_slot(std::uint32_t slot) {
  return slot < slots_.size() && slots_[slot] ? &*slots_[slot] : nullptr;
}

std::optional<WorkerId> Roster::find_pid(Pid pid) const {
  const auto found = by_pid_.lower_bound(pid);
  if (found == by_pid_.end() || found->first != pid) {
    return std::nullopt;
  }
  return found->second;
}

std::optional<WorkerId> Roster::worker_of(const os::Peer& peer) {
  if (peer.uid != 0 && peer.uid != kernel_.own_uid() && !kernel_.runs_as(peer.pid, peer.uid)) {
    return std::nullopt;
  }
  Pid pid = peer.pid;
  for (int i = 0; i < kMaxGenerations && pid > 1; ++i) {
    if (const auto worker = find_pid(pid)) {
      return worker;
    }
    pid = kernel_.parent_of(pid);
  }
  return std::nullopt;
}

Pid Roster::pid_of(WorkerId worker) const {
  const std::size_t slot = worker.slot.value;
  return slot < slots_.size() && slots_[slot] && slots_[slot]->worker == worker ? slots_[slot]->pid
                                                                                : 0;
}

}  // namespace einhorn::master
