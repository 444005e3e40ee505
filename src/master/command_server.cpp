#include "master/command_server.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "wire/json.h"

namespace einhorn::master {
namespace {

constexpr std::size_t kMaxTotalOutput = 64u << 20u;
constexpr std::size_t kBackPressureBytes =
    64 * 1024;  // of unsent output: no more requests are read
constexpr int kMaxAcceptsPerTurn = 64;
constexpr Duration kAcceptPause = std::chrono::milliseconds{200};

}  // namespace

CommandServer::CommandServer(os::Kernel& kernel, Log& log, int listener, Handler handler)
    : kernel_(kernel), log_(log), listener_(listener), handler_(std::move(handler)) {}

CommandServer::~CommandServer() {
  for (auto& [id, connection] : connections_) {
    kernel_.unwatch(connection.fd);
    kernel_.close(connection.fd);
  }
}

Status CommandServer::start() { return kernel_.watch(listener_, kListenerToken, {true, false}); }

wire::ConnectionRecord CommandServer::record_of(const Connection& connection) {
  wire::ConnectionRecord record;
  record.id = connection.id;
  record.peer_pid = connection.peer.pid;
  record.peer_uid = connection.peer.uid;
  record.peer_gid = connection.peer.gid;
  record.input = connection.input;
  record.output = connection.output;
  for (const Subscription& subscription : connection.subscriptions) {
    record.subscriptions.push_back((subscription.language == wire::Language::kJson ? "j" : "y") +
                                   wire::encode_json(subscription.request_id));
  }
  record.events = connection.events;
  return record;
}

void CommandServer::adopt(const wire::ConnectionRecord& record, int fd, Instant now) {
  Connection connection;
  connection.id = record.id;
  connection.fd = fd;
  connection.peer = {record.peer_pid, record.peer_uid, record.peer_gid};
  connection.privileged = record.peer_uid == 0 || record.peer_uid == kernel_.own_uid();
  connection.input = record.input;
  connection.output = record.output;
  connection.writing = !record.output.empty();
  connection.heard = true;
  connection.active_at = now;
  connection.kept = true;
  connection.events = record.events;
  for (const std::string& text : record.subscriptions) {
    Result<wire::Value> id = wire::parse_json(std::string_view(text).substr(text.empty() ? 0 : 1));
    if (id) {
      connection.subscriptions.push_back(
          {*id, text.starts_with('j') ? wire::Language::kJson : wire::Language::kYaml});
    }
  }
  pass_id(record.id);
  total_output_ += connection.output.size();
  if (!kernel_.watch(fd, kConnectionToken | record.id, {!connection.writing, connection.writing})) {
    total_output_ -= connection.output.size();
    kernel_.close(fd);
    return;
  }
  if (connection.input.find('\n') != std::string::npos) {
    waiting_.insert(record.id);
  }
  connections_.insert_or_assign(record.id, std::move(connection));
}

void CommandServer::subscribe(Connection& connection, Subscription subscription) {
  connection.subscriptions.push_back(std::move(subscription));
  keep(connection);
}

void CommandServer::keep(Connection& connection) {
  connection.kept = true;
  if (keeper_) {
    keeper_(connection, true);
  }
}

void CommandServer::on_listener(Instant now) {
  for (int i = 0; i < kMaxAcceptsPerTurn && !still_; ++i) {
    if (connections_.size() >= limits::kMaxConnections + extra_places_ && !make_room(now)) {
      return;
    }
    Result<os::Accepted> accepted = kernel_.accept(listener_);
    if (!accepted) {
      pause_accepting(now, accepted.error());
      return;
    }
    if (accepted->fd < 0) {
      return;
    }
    Connection connection;
    connection.id = next_id_++;
    connection.fd = accepted->fd;
    connection.peer = accepted->peer;
    connection.privileged = accepted->peer.uid == 0 || accepted->peer.uid == kernel_.own_uid();
    connection.active_at = now;
    if (!kernel_.watch(connection.fd, kConnectionToken | connection.id, {true, false})) {
      kernel_.close(connection.fd);
      continue;
    }
    log_.debug("[client " + std::to_string(connection.id) + "] client connected");
    const std::uint64_t id = connection.id;
    Connection& accepted_one = connections_.emplace(id, std::move(connection)).first->second;
    if (keeps_ && keeps_(accepted_one) == Keep::kAtOnce) {
      keep(accepted_one);
    }
    read_from(accepted_one, now);  // most have spoken already
    if (keeps_ && !accepted_one.kept && !dropped_.contains(id) &&
        keeps_(accepted_one) == Keep::kUnlessHeard) {
      keep(accepted_one);
    }
    sweep_dropped();
  }
}

void CommandServer::choose_again(Pid pid) {
  for (auto& [id, connection] : connections_) {
    if (connection.peer.pid == pid && !connection.kept && !dropped_.contains(id) && keeps_ &&
        keeps_(connection) != Keep::kNo) {
      keep(connection);
    }
  }
}

// All places are taken: whoever has been idle for longest goes, first those that may not command,
// and of them and of the others first those that never said a word.
bool CommandServer::make_room(Instant now) {
  const auto rank = [](const Connection& one) {
    return std::tuple(one.privileged, one.heard, one.active_at);
  };
  Connection* oldest = nullptr;
  for (auto& [id, connection] : connections_) {
    if (!connection.subscriptions.empty() || connection.kept || connection.active_at == now) {
      continue;
    }
    if (oldest == nullptr || rank(connection) < rank(*oldest)) {
      oldest = &connection;
    }
  }
  ++refused_;
  if (oldest == nullptr) {
    accept_again_at_ = now + kAcceptPause;
    kernel_.unwatch(listener_);
    return false;
  }
  drop(oldest->id);
  sweep_dropped();
  return true;
}

void CommandServer::pause_accepting(Instant now, const Error& error) {
  log_.error("accept_failed", "Can't accept on the command socket: " + error.message());
  accept_again_at_ = now + kAcceptPause;
  kernel_.unwatch(listener_);
}

std::optional<Instant> CommandServer::next_deadline(Instant now) const {
  if (!waiting_.empty() || !dropped_.empty()) {
    return now;
  }
  return accept_again_at_;
}

void CommandServer::continue_waiting(Instant now) {
  if (accept_again_at_ && *accept_again_at_ <= now) {
    accept_again_at_.reset();
    if (!start()) {
      accept_again_at_ = now + kAcceptPause;
    } else {
      on_listener(now);
    }
  }
  const std::set<std::uint64_t> waiting = std::exchange(waiting_, {});
  for (const std::uint64_t id : waiting) {
    const auto found = connections_.find(id);
    if (found != connections_.end()) {
      process(found->second, now);
    }
  }
  sweep_dropped();
}

void CommandServer::on_connection(std::uint64_t id, const os::Ready& ready, Instant now) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) {
    return;
  }
  Connection& connection = found->second;
  if (ready.writable) {
    flush(connection);
  }
  if (ready.readable && !dropped_.contains(id)) {
    read_from(connection, now);
  }
  sweep_dropped();
}

void CommandServer::read_from(Connection& connection, Instant now) {
  if (connection.input.size() > limits::kMaxLineBytes) {
    return;  // whole requests wait for their turn: first those
  }
  std::array<char, 16 * 1024> buffer;
  const os::Transfer transfer = kernel_.read(connection.fd, buffer);
  switch (transfer.kind) {
    case os::Transfer::Kind::kWouldBlock:
      return;
    case os::Transfer::Kind::kClosed:
      // What it asked before it hung up is still done; a line without its end is not.
      process(connection, now);
      drop(connection.id);
      return;
    case os::Transfer::Kind::kDone:
      break;
  }
  connection.active_at = now;
  if (!connection.closing) {
    connection.input.append(buffer.data(), transfer.bytes);
    process(connection, now);
  }
}

void CommandServer::process(Connection& connection, Instant now) {
  std::size_t handled = 0;
  while (!connection.closing && !dropped_.contains(connection.id)) {
    const std::size_t end = connection.input.find('\n');
    if (end == std::string::npos) {
      if (connection.input.size() > limits::kMaxLineBytes) {
        reply(connection,
              {"Request line is too long: more than " + std::to_string(limits::kMaxLineBytes) +
                   " bytes",
               std::nullopt, false, "error"},
              wire::Language::kYaml);
        log_.error("client_refused", "[client " + std::to_string(connection.id) +
                                         "] sent a line that is too long; closing it");
        close_after_output(connection);
      }
      break;
    }
    if (still_ || handled == limits::kMaxRequestsPerTurn ||
        connection.output.size() > kBackPressureBytes) {
      waiting_.insert(connection.id);
      break;
    }
    const std::string line = connection.input.substr(0, end);
    connection.input.erase(0, end + 1);  // first: a master that goes on for us must not do it again
    ++handled;
    handle_line(connection, line, now);
  }
  if (connection.output.size() > kBackPressureBytes) {
    waiting_.erase(connection.id);  // goes on when its output is gone
  }
}

void CommandServer::handle_line(Connection& connection, std::string_view line, Instant /*now*/) {
  if (line.empty() || line == "\r") {
    return;
  }
  connection.heard = true;
  Result<wire::Request> request = wire::parse_request(line);
  if (!request) {
    log_.error("bad_request", "[client " + std::to_string(connection.id) +
                                  "] could not parse command: " + request.error().message());
    reply(connection, {"Could not parse command", std::nullopt, false, "error"},
          line.starts_with('{') ? wire::Language::kJson : wire::Language::kYaml);
    return;
  }
  handler_(connection, *request);
}

void CommandServer::reply(Connection& connection, const wire::Reply& reply,
                          wire::Language language) {
  if (dropped_.contains(connection.id)) {
    return;
  }
  if (!write(connection, wire::encode_reply(reply, language))) {
    log_.error("client_dropped",
               "[client " + std::to_string(connection.id) + "] does not read; closing it");
    drop(connection.id);
  }
}

bool CommandServer::write(Connection& connection, std::string_view lines) {
  if (connection.output.size() + lines.size() > limits::kMaxPendingOutput ||
      total_output_ + lines.size() > kMaxTotalOutput) {
    return false;
  }
  connection.output += lines;
  total_output_ += lines.size();
  if (!connection.writing) {
    flush(connection);
  }
  return true;
}

Connection* CommandServer::find(std::uint64_t id) {
  const auto found = connections_.find(id);
  return found == connections_.end() || dropped_.contains(id) ? nullptr : &found->second;
}

bool CommandServer::cut_output(Connection& connection, const std::string& last_line) {
  // The first line may have gone out in part.
  const std::size_t end = connection.output.find('\n');
  total_output_ -= connection.output.size();
  connection.output.resize(end == std::string::npos ? 0 : end + 1);
  connection.output += last_line;
  total_output_ += connection.output.size();
  connection.closing = true;
  flush(connection);
  return find(connection.id) != nullptr;
}

void CommandServer::close(Connection& connection) { drop(connection.id); }

void CommandServer::flush(Connection& connection) {
  std::size_t sent = 0;
  while (sent < connection.output.size()) {
    const os::Transfer transfer =
        kernel_.write(connection.fd, std::string_view(connection.output).substr(sent));
    if (transfer.kind == os::Transfer::Kind::kClosed) {
      drop(connection.id);
      return;
    }
    if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    sent += transfer.bytes;
  }
  connection.output.erase(0, sent);
  total_output_ -= sent;
  const bool writing = !connection.output.empty();
  if (writing != connection.writing) {
    connection.writing = writing;
    if (!kernel_.watch(connection.fd, kConnectionToken | connection.id, {!writing, writing})) {
      drop(connection.id);
      return;
    }
  }
  if (!writing) {
    connection.output.shrink_to_fit();
    if (connection.closing) {
      drop(connection.id);
    } else if (connection.input.find('\n') != std::string::npos) {
      waiting_.insert(connection.id);
    }
  }
}

void CommandServer::close_after_output(Connection& connection) {
  connection.closing = true;
  if (connection.output.empty()) {
    drop(connection.id);
  }
}

int CommandServer::release(Connection& connection) {
  still_ = true;
  const int fd = std::exchange(connection.fd, -1);
  kernel_.unwatch(fd);
  connection.closing = true;
  drop(connection.id);
  return fd;
}

void CommandServer::drop(std::uint64_t id) { dropped_.insert(id); }

void CommandServer::sweep_dropped() {
  for (const std::uint64_t id : dropped_) {
    const auto found = connections_.find(id);
    if (found == connections_.end()) {
      continue;
    }
    total_output_ -= found->second.output.size();
    if (found->second.fd >= 0) {
      kernel_.unwatch(found->second.fd);
      kernel_.close(found->second.fd);
    }
    log_.debug("[client " + std::to_string(id) + "] client disconnected");
    if (found->second.kept && keeper_) {
      keeper_(found->second, false);
    }
    connections_.erase(found);
    waiting_.erase(id);
  }
  dropped_.clear();
}

bool CommandServer::has_subscribers() const {
  return std::any_of(connections_.begin(), connections_.end(), [](const auto& connection) {
    return !connection.second.subscriptions.empty();
  });
}

// It waits for nothing more.
void CommandServer::let_go(Connection& connection) {
  if (!connection.events && std::exchange(connection.kept, false) && keeper_) {
    keeper_(connection, false);
  }
}

void CommandServer::refuse(Connection& connection, const std::string& message,
                           const std::string& status) {
  if (connection.subscriptions.empty()) {
    return;
  }
  const Subscription refused = std::move(connection.subscriptions.back());
  connection.subscriptions.pop_back();
  if (connection.subscriptions.empty()) {
    let_go(connection);
  } else if (keeper_) {
    keeper_(connection, true);
  }
  reply(connection, {message, refused.request_id, false, status}, refused.language);
}

void CommandServer::publish(const std::string& message, bool last, const std::string& status) {
  for (auto& [id, connection] : connections_) {
    const std::vector<Subscription> subscriptions = connection.subscriptions;
    if (last && !subscriptions.empty()) {
      connection.subscriptions.clear();
      let_go(connection);
    }
    for (const Subscription& subscription : subscriptions) {
      reply(connection, {message, subscription.request_id, !last, last ? status : ""},
            subscription.language);
    }
  }
}

}  // namespace einhorn::master
