#include "master/zygotes.h"

#include <algorithm>
#include <csignal>

#include "base/numbers.h"
#include "master/zygote_text.h"

namespace einhorn::master {
namespace {

using pool::event::Blame;
using zygote::kForkPatience;
using zygote::kNamePrefix;
using zygote::seconds;

constexpr Duration kVanishedPatience = std::chrono::seconds{1};
constexpr int kMaxMessagesPerTurn = 1024;
constexpr std::size_t kMaxText = 400;
constexpr std::uint64_t kForkIdsAtATime = 1024;  // of which it is written down that they are used

// One line for people, whatever a program has said.
std::string plain(std::string text) {
  text.resize(std::min(text.size(), kMaxText));
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return text;
}

}  // namespace

Zygotes::Zygotes(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
                 Hooks hooks)
    : kernel_(kernel), guard_(guard), log_(log), settings_(settings), hooks_(std::move(hooks)) {}

Zygotes::~Zygotes() {
  for (const auto& [key, zygote] : zygotes_) {
    for (const int fd : {zygote.socket, zygote.pidfd}) {
      if (fd >= 0) {
        kernel_.close(fd);
      }
    }
  }
}

std::string Zygotes::shown() const {
  return settings_.preload.empty() ? settings_.preload_command.front() : settings_.preload;
}

// --- from the last master to this one -----------------------------------------------------------

void Zygotes::adopt(const wire::ZygoteRecord& record) {
  next_number_ = std::max(next_number_, record.number + 1);
  next_fork_id_ = std::max(next_fork_id_, record.asked_below);
  zygotes_[record.number].record = record;
}

bool Zygotes::adopt(std::string_view name, int fd) {
  if (!name.starts_with(kNamePrefix)) {
    return false;
  }
  const std::uint64_t key = number_of(name.substr(kNamePrefix.size()));
  next_number_ = std::max(next_number_, key + 1);
  zygotes_[key].record.number = key;
  zygotes_[key].socket = fd;
  return true;
}

void Zygotes::expect(WorkerId worker, Version version, Request request) {
  next_fork_id_ = std::max(next_fork_id_, request.fork_id + 1);
  requests_[worker.epoch] = request;
  expected_.emplace_back(worker, version);
}

Zygotes::Request Zygotes::request(WorkerId worker) const {
  const auto found = requests_.find(worker.epoch);
  return found != requests_.end() ? found->second : Request{};
}

void Zygotes::start(Instant now, const Place& place) {
  keep_below_ = place.keep_below;
  guard_pid_ = place.guard;
  death_signal_ = place.death_signal;
  const bool same_guard = place.same_guard;
  std::vector<std::uint64_t> all;
  for (const auto& [key, zygote] : zygotes_) {
    all.push_back(key);
  }
  for (const std::uint64_t key : all) {
    Zygote& zygote = zygotes_.at(key);
    zygote.foreign = !same_guard || zygote.record.guard != guard_pid_;
    // No process yet, or no socket: whoever has its other end reads its end and leaves. Who has closed
    // it itself does not.
    if (zygote.record.pid == 0 || zygote.socket < 0) {
      if (zygote.record.pid != 0 && !zygote.foreign) {
        zygote.pidfd = kernel_.open_process(zygote.record.pid, guard_pid_).value_or(-1);
      }
      drop(key);
      continue;
    }
    zygote.started_at = now;
    zygote.adopted = true;
    zygote.state = zygote.record.loaded ? State::kReady : State::kLoading;
    if (zygote.state == State::kLoading) {
      zygote.deadline = now + settings_.preload_timeout;
    }
    zygote.pidfd =
        kernel_.open_process(zygote.record.pid, zygote.foreign ? 0 : guard_pid_).value_or(-1);
    watch_socket(zygote, false);
    if (zygote.pidfd < 0) {
      zygote.ended = true;
      leave(zygote, now);
    } else {
      static_cast<void>(kernel_.watch(zygote.pidfd, kDeathToken | key, {true, false}).has_value());
      if (zygote.foreign) {
        leave(zygote, now);
      }
    }
  }
  resume_requests(now);
  hear_all(now);
  dispatch(now);
}

// The zygote that was asked is asked again if it is still of use, and heard out if it is not. Another
// one may have been asked for later ones meanwhile, so that it needs a new number.
void Zygotes::resume_requests(Instant now) {
  for (const auto& [worker, version] : std::exchange(expected_, {})) {
    Request& request = requests_.at(worker.epoch);
    Zygote* const asked = find(request.zygote);
    if (asked != nullptr && asked->state == State::kLeaving) {
      asked->sent[request.fork_id] = {worker, now + kForkPatience};
      continue;
    }
    if (asked == nullptr && request.zygote != 0) {
      request = {next_fork_id_++, 0};
      hooks_.note_worker(worker);
    }
    waiting_[request.fork_id] = {worker, version};
  }
}

std::map<std::uint64_t, wire::ZygoteRecord> Zygotes::records() const {
  std::map<std::uint64_t, wire::ZygoteRecord> records;
  for (const auto& [key, zygote] : zygotes_) {
    records[key] = zygote.record;
  }
  return records;
}

void Zygotes::list(std::vector<std::pair<std::string, int>>& all) const {
  for (const auto& [key, zygote] : zygotes_) {
    if (zygote.socket >= 0) {
      all.emplace_back(std::string(kNamePrefix) + std::to_string(key), zygote.socket);
    }
  }
}

std::vector<Zygotes::View> Zygotes::views() const {
  std::vector<View> views;
  for (const auto& [key, zygote] : zygotes_) {
    if (zygote.state != State::kLeaving) {
      views.push_back(
          {zygote.record.version, zygote.record.pid, zygote.state == State::kReady, zygote.status});
    }
  }
  return views;
}

bool Zygotes::loaded(Version version) const {
  return std::any_of(zygotes_.begin(), zygotes_.end(), [version](const auto& entry) {
    return entry.second.record.version == version && entry.second.state == State::kReady;
  });
}

Zygotes::Zygote* Zygotes::active(Version version) {
  for (auto& [key, zygote] : zygotes_) {
    if (zygote.record.version == version && zygote.state != State::kLeaving && !zygote.ended &&
        zygote.socket >= 0) {
      return &zygote;
    }
  }
  return nullptr;
}

Zygotes::Zygote* Zygotes::find(std::uint64_t key) {
  const auto found = zygotes_.find(key);
  return found != zygotes_.end() ? &found->second : nullptr;
}

// --- starting one, asking it --------------------------------------------------------------------

void Zygotes::begin(Version version, Instant now) {
  restart_at_.erase(version);
  Result<std::pair<int, int>> pair = kernel_.socket_pair();
  if (!pair) {
    fail_waiting(version, "its zygote could not be started: " + pair.error().message(),
                 Blame::kWorker);
    return;
  }
  const auto [ours, other] = *pair;
  Status vouched = kernel_.ask_for_senders(ours);
  Result<int> theirs = kernel_.raise(other, std::max(settings_.control + 1, keep_below_));
  Zygote zygote;
  zygote.record.number = next_number_++;
  zygote.record.version = version;
  zygote.record.guard = guard_pid_;
  zygote.socket = ours;
  zygote.started_at = now;
  zygote.deadline = now + settings_.preload_timeout;
  os::SpawnSpec spec = hooks_.spec(version);
  zygote.own = zygote.foreign = !spec.sibling;
  Result<os::Spawned> spawned =
      theirs ? Result<os::Spawned>(os::Spawned{}) : Result<os::Spawned>(theirs.error());
  if (theirs && vouched) {
    spec.environment.push_back("EINHORN_ZYGOTE_FD=" + std::to_string(settings_.control));
    spec.descriptors.push_back({*theirs, settings_.control});
    spec.keep_below = *theirs + 1;
    guard_.keep(std::string(kNamePrefix) + std::to_string(zygote.record.number), ours);
    note(zygote);
    spawned = kernel_.spawn(spec);
  }
  kernel_.close(theirs ? *theirs : other);
  const std::uint64_t key = zygote.record.number;
  const bool failed = !vouched || !spawned || spawned->failed;
  if (failed) {
    const Error error = !vouched ? vouched.error() : !spawned ? spawned.error() : *spawned->failed;
    if (spawned && spawned->pidfd >= 0) {
      kernel_.close(spawned->pidfd);
      guard_.ask_for(spawned->pid);
    }
    zygotes_[key] = std::move(zygote);
    fail_load(zygotes_[key], error.message(), Blame::kWorker, now);
    return;
  }
  tell_unmet(*spawned);
  zygote.record.pid = spawned->pid;
  zygote.pidfd = spawned->pidfd;
  note(zygote);
  zygotes_[key] = std::move(zygote);
  watch_socket(zygotes_[key], false);
  static_cast<void>(kernel_.watch(spawned->pidfd, kDeathToken | key, {true, false}).has_value());
  hooks_.told({"preloading", version, spawned->pid, "", std::nullopt});
  log_.info("preloading", "Preloading " + shown() + " (version " + std::to_string(version.value) +
                              ", zygote " + std::to_string(spawned->pid) + ")");
}

// Its workers go without it too.
void Zygotes::tell_unmet(const os::Spawned& spawned) {
  const std::string who = "Zygote " + std::to_string(spawned.pid) + " and its workers";
  for (const Error& unmet : spawned.unmet) {
    log_.error("identity_unmet", who + " go on without it: " + unmet.message());
  }
  if (spawned.nice_error != 0) {
    log_.error("renice_failed", who + " go on at the nice level that they have: " +
                                    Error{spawned.nice_error, "setpriority", ""}.message());
  }
}

void Zygotes::fork(WorkerId worker, Version version, Instant now) {
  waiting_[requests_.at(worker.epoch).fork_id] = {worker, version};
  Zygote* zygote = active(version);
  if (zygote == nullptr) {
    begin(version, now);
  } else {
    flush(*zygote, now);
  }
}

void Zygotes::dispatch(Instant now) {
  std::set<Version> versions;
  for (const auto& [id, fork] : waiting_) {
    versions.insert(fork.second);
  }
  for (const Version version : versions) {
    if (Zygote* zygote = active(version)) {
      flush(*zygote, now);
    } else {
      begin(version, now);
    }
  }
}

// In the order of their numbers: a zygote ignores one that is not higher than the last.
void Zygotes::flush(Zygote& zygote, Instant now) {
  if (zygote.state != State::kReady || zygote.writable_watched) {
    return;
  }
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (it->second.second != zygote.record.version) {
      ++it;
    } else if (send(zygote, it->first, it->second.first, now)) {
      it = waiting_.erase(it);
    } else {
      return;
    }
  }
}

bool Zygotes::send(Zygote& zygote, std::uint64_t fork_id, WorkerId worker, Instant now) {
  if (fork_id >= zygote.record.asked_below) {
    zygote.record.asked_below = fork_id + kForkIdsAtATime;
    note(zygote);
  }
  std::string text = "FORK=" + std::to_string(fork_id);
  for (const std::string& variable : hooks_.variables(worker)) {
    text += "\n" + variable;
  }
  if (death_signal_ != 0) {
    text += "\nDEATH_SIGNAL=" + std::to_string(death_signal_);
  }
  if (settings_.command_socket_as_fd) {
    text += "\nCONNECT=" + settings_.socket_path;
  }
  if (Request& request = requests_.at(worker.epoch); request.zygote != zygote.record.number) {
    request.zygote = zygote.record.number;
    hooks_.note_worker(worker);
  }
  const os::Transfer transfer = kernel_.send(zygote.socket, text, {});
  if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
    watch_socket(zygote, true);
    zygote.deadline = zygote.deadline.value_or(now + kForkPatience);  // it does not read
    return false;
  }
  // Done; or it is gone, which is heard of soon, and then what was sent is given to another one.
  zygote.sent[fork_id] = {worker, now + kForkPatience};
  return true;
}

void Zygotes::watch_socket(Zygote& zygote, bool for_writing) {
  zygote.writable_watched = for_writing;
  if (Status watched =
          kernel_.watch(zygote.socket, kSocketToken | zygote.record.number, {true, for_writing});
      !watched) {
    log_.error("preload_failed", watched.error().message());
  }
}

// --- what they say ------------------------------------------------------------------------------

void Zygotes::on_socket(std::uint64_t key, const os::Ready& ready, Instant now) {
  hear(key, now);
  Zygote* zygote = find(key);
  if (zygote != nullptr && ready.writable && zygote->writable_watched && zygote->socket >= 0) {
    watch_socket(*zygote, false);
    if (zygote->state == State::kReady) {
      zygote->deadline.reset();
    }
    dispatch(now);
  }
}

void Zygotes::hear_all(Instant now) {
  std::vector<std::uint64_t> all;
  for (const auto& [key, zygote] : zygotes_) {
    all.push_back(key);
  }
  for (const std::uint64_t key : all) {
    hear(key, now);
  }
}

void Zygotes::hear(std::uint64_t key, Instant now) {
  if (hearing_) {
    return;
  }
  hearing_ = true;
  for (int i = 0; i < kMaxMessagesPerTurn; ++i) {
    Zygote* zygote = find(key);
    if (zygote == nullptr || zygote->socket < 0) {
      break;
    }
    const int socket = zygote->socket;
    const os::Message message = kernel_.peek(socket);
    if (message.kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    if (message.kind == os::Transfer::Kind::kClosed) {
      on_closed(*zygote, now);
      break;
    }
    on_message(*zygote, message, now);
    // Only now that it has been written down what the message said.
    zygote = find(key);
    if (zygote != nullptr && zygote->socket == socket) {
      for (const int fd : kernel_.receive(socket).fds) {
        kernel_.close(fd);
      }
    }
  }
  hearing_ = false;
}

void Zygotes::on_message(Zygote& zygote, const os::Message& message, Instant now) {
  Lines lines;
  std::string_view rest = message.text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const std::size_t equals = line.find('=');
    if (equals != std::string_view::npos) {
      lines.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    }
  }
  const auto value_of = [&lines](std::string_view name) -> std::optional<std::string> {
    for (const auto& [key, value] : lines) {
      if (key == name) {
        return value;
      }
    }
    return std::nullopt;
  };
  if (const auto forked = value_of("FORKED")) {
    on_forked(zygote, number_of(*forked), message.sender.pid, now);
    return;
  }
  if (message.sender.pid != zygote.record.pid) {
    if (!std::exchange(zygote.complained, true)) {
      log_.error("preload_stranger",
                 "Process " + std::to_string(message.sender.pid) +
                     " speaks on the socket of zygote " + std::to_string(zygote.record.pid) +
                     "; it is not listened to. Does " + shown() + " fork while it is loaded?");
    }
    return;
  }
  const std::optional<std::string> status = value_of("STATUS");
  if (status) {
    zygote.status = plain(*status);
  }
  if (const auto failed = value_of("FAILED")) {
    on_fork_failed(zygote, number_of(*failed), status ? ": " + zygote.status : "");
  } else if (value_of("ERRNO")) {
    if (zygote.state == State::kLoading) {
      fail_load(zygote, status ? plain(*status) : "ERRNO=" + plain(*value_of("ERRNO")),
                Blame::kVersion, now);
    }
  } else if (value_of("READY") == "1") {
    if (status) {
      log_.info("preload_status", shown() + ": " + zygote.status);
    }
    on_ready(zygote, now);
  } else if (status) {
    log_.info("preload_status", shown() + ": " + zygote.status);
  }
}

void Zygotes::on_ready(Zygote& zygote, Instant now) {
  if (zygote.state != State::kLoading) {
    return;
  }
  zygote.state = State::kReady;
  zygote.deadline.reset();
  zygote.record.loaded = true;
  note(zygote);
  hooks_.told({"preloaded", zygote.record.version, zygote.record.pid, "", now - zygote.started_at});
  log_.info("preloaded", "Preloaded " + shown() + " in " + seconds(now - zygote.started_at) +
                             " (version " + std::to_string(zygote.record.version.value) +
                             ", zygote " + std::to_string(zygote.record.pid) + ")");
  zygote.started_at = now;
  dispatch(now);
}

void Zygotes::on_forked(Zygote& zygote, std::uint64_t fork_id, Pid pid, Instant now) {
  std::optional<WorkerId> worker;
  if (const auto sent = zygote.sent.find(fork_id); sent != zygote.sent.end()) {
    worker = sent->second.worker;
    zygote.sent.erase(sent);
  } else if (const auto waits = waiting_.find(fork_id);
             waits != waiting_.end() && waits->second.second == zygote.record.version) {
    worker = waits->second.first;  // the last master had asked for it
    waiting_.erase(waits);
  }
  if (worker) {
    requests_.erase(worker->epoch);
    if (!hooks_.forked(*worker, pid, zygote.foreign)) {
      vanished_[worker->epoch] = {*worker, now + kVanishedPatience};
    }
    return;
  }
  if (pid <= 1 || hooks_.knows(pid)) {
    return;  // said to the last master, which has written it down
  }
  if (const auto pidfd = kernel_.open_process(pid, zygote.foreign ? 0 : guard_pid_)) {
    log_.error("preload_late", "Worker " + std::to_string(pid) +
                                   " was forked when nobody waited for it any more; ending it");
    kernel_.signal(*pidfd, pid, SIGKILL, true);
    kernel_.close(*pidfd);
  }
}

void Zygotes::on_fork_failed(Zygote& zygote, std::uint64_t fork_id, const std::string& why) {
  const auto sent = zygote.sent.find(fork_id);
  if (sent == zygote.sent.end()) {
    return;
  }
  const WorkerId worker = sent->second.worker;
  zygote.sent.erase(sent);
  fail(worker, "could not be forked" + why, Blame::kWorker);
}

void Zygotes::fail(WorkerId worker, const std::string& reason, Blame blame) {
  requests_.erase(worker.epoch);
  hooks_.failed(worker, reason, blame);
}

}  // namespace einhorn::master
