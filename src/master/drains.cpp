#include "master/drains.h"

#include <vector>

#include "master/interceptor.h"

namespace einhorn::master {

void Drains::withhold(WorkerId worker, Pid pid, int signal, Instant since) {
  const auto [place, fresh] = waiting_.try_emplace(worker, Waiting{pid, signal, since + patience_});
  place->second.signal = signal;
  if (fresh) {
    interceptor_.drain(worker, pid);
  }
}

int Drains::withheld(WorkerId worker) const {
  const auto found = waiting_.find(worker);
  return found == waiting_.end() ? 0 : found->second.signal;
}

void Drains::on_drained(WorkerId worker) {
  const auto found = waiting_.find(worker);
  if (found == waiting_.end()) {
    return;
  }
  const int signal = found->second.signal;
  waiting_.erase(found);
  hooks_.deliver(worker, signal);
  interceptor_.signaled(worker);
}

std::optional<Instant> Drains::next_deadline() const {
  std::optional<Instant> next;
  for (const auto& [worker, waiting] : waiting_) {
    if (!next || waiting.until < *next) {
      next = waiting.until;
    }
  }
  return next;
}

void Drains::turn(Instant now) {
  std::vector<WorkerId> due;
  for (const auto& [worker, waiting] : waiting_) {
    if (waiting.until <= now) {
      due.push_back(worker);
    }
  }
  for (const WorkerId worker : due) {
    on_drained(worker);
  }
}

void Drains::ask_again() {
  for (const auto& [worker, waiting] : waiting_) {
    interceptor_.drain(worker, waiting.pid);
  }
}

}  // namespace einhorn::master
