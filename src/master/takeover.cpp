// When the guard has died: a new `einhorn` with the same name takes the pool over from the living
// master, sockets first.
//
// The new one asks over the command socket (`guard:takeover`). We send every descriptor with the
// snapshot and stop acting. When a master of the new guard has read it and acts, its guard says so
// and we leave without a trace; if the new one goes away before, we go on as if nothing had been.
#include <array>

#include "master/master.h"

namespace einhorn::master {
namespace {

constexpr std::uint64_t kSuccessorToken = 3;
constexpr std::size_t kDescriptorsPerMessage = 64;

}  // namespace

bool Master::hand_over(Connection& connection) {
  if (guard_.socket() >= 0 || successor_ >= 0) {
    return false;  // to one at a time
  }
  publish_what_waited();
  log_->info("handing_over", "Process " + std::to_string(connection.peer.pid) +
                                 " takes the pool over; handing everything to it");
  // Whoever started while there was no guard is our child, and soon nobody's.
  for (const pool::Worker* worker : pool_->workers()) {
    if (Roster::Process* process = roster_->find(worker->id)) {
      process->orphan = true;
    }
  }
  connection.closing = true;  // it is not one of those that are handed on
  if (!write_all_down()) {
    connection.closing = false;
    return false;
  }
  successor_ = server_->release(connection);
  successor_said_.clear();
  send_descriptors();
  if (!kernel_.watch(successor_, kSuccessorToken, {true, false})) {
    thaw();
  }
  return true;
}

void Master::send_descriptors() {
  std::vector<std::pair<std::string, int>> all = {{"snapshot", journal_->fd()},
                                                  {"command", descriptors_.command},
                                                  {"notify", descriptors_.notify}};
  for (const auto& [index, fd] : descriptors_.listeners) {
    all.emplace_back("listen:" + std::to_string(index), fd);
  }
  if (interceptor_) {
    interceptor_->list(all);
  }
  if (capture_) {
    capture_->list(all);
  }
  if (agent_) {
    agent_->companion().list(all);
  }
  for (const auto& [id, connection] : server_->connections()) {
    if (connection.fd >= 0 && !connection.closing) {
      all.emplace_back("conn:" + std::to_string(id), connection.fd);
    }
  }
  if (zygotes_) {
    zygotes_->list(all);
  }
  hooks_->list(all);
  for (std::size_t from = 0; from < all.size(); from += kDescriptorsPerMessage) {
    std::string text = "X_EINHORN_FDS=1";
    std::vector<int> fds;
    for (std::size_t i = from; i < all.size() && i < from + kDescriptorsPerMessage; ++i) {
      text += " " + all[i].first;
      fds.push_back(all[i].second);
    }
    kernel_.send(successor_, text + "\n", fds);
  }
  kernel_.send(successor_, "X_EINHORN_GO=1\n", {});
}

// Nothing but the successor is listened to.
bool Master::frozen_turn() {
  std::array<os::Ready, 64> ready;
  const std::size_t count = kernel_.wait(ready, std::nullopt);
  now_ = kernel_.now();
  for (std::size_t i = 0; i < count; ++i) {
    if (ready[i].token != kSuccessorToken) {
      continue;
    }
    std::array<char, 256> buffer;
    const os::Transfer transfer = kernel_.read(successor_, buffer);
    if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
      continue;
    }
    if (transfer.kind == os::Transfer::Kind::kClosed) {
      return thaw();
    }
    successor_said_.append(buffer.data(), transfer.bytes);
    if (successor_said_.find("X_EINHORN_LEAVE=1\n") != std::string::npos) {
      kernel_.unwatch(successor_);
      kernel_.close(successor_);
      log_->info("handed_over", "The pool has been taken over; this master leaves");
      return false;
    }
  }
  return true;
}

// The new guard is gone. False: a master of it has taken its turn, and lives.
bool Master::thaw() {
  kernel_.unwatch(successor_);
  kernel_.close(successor_);
  successor_ = -1;
  os::SpawnNote* note = journal_->note();
  if (note != nullptr && !Journal::decide(*note, os::SpawnNote::kTheOldMaster)) {
    const std::optional<int> taker = kernel_.open_process(note->taker, 0);
    const bool lives = taker && !kernel_.is_dead(*taker);
    if (taker) {
      kernel_.close(*taker);
    }
    if (lives) {
      log_->info("handed_over", "The new guard has died, but its master acts; this one leaves");
      return false;
    }
  }
  server_->go_on();
  log_->error("take_over_failed", "Whoever wanted to take over is gone; going on");
  drain_events();
  return true;
}

}  // namespace einhorn::master
