// The command socket: connections, lines, limits. What a line means is the handler's business.
//
// A slow, silent, vanished or hostile client costs nobody else anything: every buffer has a limit,
// nobody is waited for, one client gets a bounded share of a turn, and when all places are taken
// the client that has been idle for longest makes room. Only root and the master's own user may
// command; other users' processes are let in for the messages of workers only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/instant.h"
#include "base/limits.h"
#include "master/log.h"
#include "os/kernel.h"
#include "wire/message.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// Somebody waits for the end of an upgrade.
struct Subscription {
  wire::Value request_id;
  wire::Language language = wire::Language::kYaml;
};

struct Connection {
  std::uint64_t id = 0;
  int fd = -1;
  os::Peer peer;
  bool privileged = false;  // root or the master's user
  std::string input;
  std::string output;
  bool writing = false;                 // output waits for room
  bool closing = false;                 // goes as soon as its output is gone
  bool heard = false;                   // has sent a whole line
  bool kept = false;                    // outlives this master
  std::optional<std::uint64_t> events;  // gets the event stream; a sample each so many ms, 0 none
  Instant active_at;
  std::vector<Subscription> subscriptions;
};

class CommandServer {
 public:
  // Called for each request; may reply to the connection and close it.
  using Handler = std::function<void(Connection&, const wire::Request&)>;

  static constexpr std::uint64_t kListenerToken = std::uint64_t{1} << 40U;
  static constexpr std::uint64_t kConnectionToken = std::uint64_t{2} << 40U;

  CommandServer(os::Kernel& kernel, Log& log, int listener, Handler handler);
  ~CommandServer();
  CommandServer(const CommandServer&) = delete;
  CommandServer& operator=(const CommandServer&) = delete;

  // `keep` is told when a connection shall outlive this master (true), and when no longer.
  void set_keeper(std::function<void(const Connection&, bool keep)> keeper) {
    keeper_ = std::move(keeper);
  }
  // Which new connections shall outlive this master.
  enum class Keep { kNo, kAtOnce, kUnlessHeard };
  void set_chooser(std::function<Keep(const Connection&)> keeps) { keeps_ = std::move(keeps); }
  // That process is a worker, as is known only now.
  void choose_again(Pid pid);
  // A connection of an earlier master. Takes the descriptor over.
  void adopt(const wire::ConnectionRecord& record, int fd, Instant now);
  // An earlier master has used it: not for another connection.
  void pass_id(std::uint64_t id) { next_id_ = std::max(next_id_, id + 1); }
  void subscribe(Connection& connection, Subscription subscription);
  [[nodiscard]] const std::map<std::uint64_t, Connection>& connections() const {
    return connections_;
  }
  [[nodiscard]] static wire::ConnectionRecord record_of(const Connection& connection);

  Status start();
  // More connections than usual: workers that hold one each (-g).
  void set_extra_places(std::size_t places) { extra_places_ = places; }

  void on_listener(Instant now);
  void on_connection(std::uint64_t id, const os::Ready& ready, Instant now);
  // Requests that had to wait for the next turn.
  void continue_waiting(Instant now);
  // When continue_waiting or another try to accept is wanted.
  [[nodiscard]] std::optional<Instant> next_deadline(Instant now) const;

  void reply(Connection& connection, const wire::Reply& reply, wire::Language language);
  void close_after_output(Connection& connection);
  // Null: it is gone, or going.
  [[nodiscard]] Connection* find(std::uint64_t id);
  // Lines that are no reply. False: there is no room for them, and nothing was written.
  bool write(Connection& connection, std::string_view lines);
  // In place of whole lines that have not gone out yet, this last one; then it is closed. False: it
  // is gone already.
  bool cut_output(Connection& connection, const std::string& last_line);
  // At once, whatever has not gone out yet.
  void close(Connection& connection);
  // From now on the connection outlives this master.
  void keep(Connection& connection);
  // Takes the descriptor out of the server; the connection is no more. The caller's to close. From
  // here on nobody is accepted and no request is handled before go_on().
  int release(Connection& connection);
  void go_on() { still_ = false; }
  // What this connection has subscribed to last does not begin. Nothing if everybody was told that.
  void refuse(Connection& connection, const std::string& message, const std::string& status);
  // To everybody who waits for an upgrade; the last message ends their waiting.
  void publish(const std::string& message, bool last, const std::string& status);
  [[nodiscard]] bool has_subscribers() const;
  [[nodiscard]] std::size_t size() const { return connections_.size(); }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }

 private:
  void read_from(Connection& connection, Instant now);
  void process(Connection& connection, Instant now);
  void handle_line(Connection& connection, std::string_view line, Instant now);
  void flush(Connection& connection);
  void let_go(Connection& connection);
  void drop(std::uint64_t id);
  void sweep_dropped();
  bool make_room(Instant now);
  void pause_accepting(Instant now, const Error& error);

  os::Kernel& kernel_;
  Log& log_;
  int listener_;
  Handler handler_;
  std::function<void(const Connection&, bool keep)> keeper_;
  std::function<Keep(const Connection&)> keeps_;
  std::map<std::uint64_t, Connection> connections_;
  std::set<std::uint64_t> waiting_;  // have whole lines left
  std::set<std::uint64_t> dropped_;  // to be removed once nobody refers to them
  std::uint64_t next_id_ = 1;
  std::size_t extra_places_ = 0;
  bool still_ = false;  // whoever has whole lines left waits for the next master, or for go_on()
  std::size_t total_output_ = 0;
  std::uint64_t refused_ = 0;
  std::optional<Instant> accept_again_at_;
};

}  // namespace einhorn::master
