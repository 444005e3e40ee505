// What people can ask a master: one table of commands, their help and their answers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "master/command_server.h"
#include "master/event_stream.h"
#include "pool/event.h"
#include "pool/pool.h"
#include "wire/message.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// What a worker says with worker:ping.
struct WorkerPing {
  std::string request_id;    // JSON text
  std::optional<bool> busy;  // a request begins or ends
};

// What a command may do to the master it runs in.
class CommandTarget {
 public:
  CommandTarget() = default;
  CommandTarget(const CommandTarget&) = delete;
  CommandTarget& operator=(const CommandTarget&) = delete;
  virtual ~CommandTarget() = default;

  virtual void apply(const pool::Event& event) = 0;
  [[nodiscard]] virtual const pool::Pool& pool() const = 0;
  [[nodiscard]] virtual const wire::Settings& settings() const = 0;
  virtual void set_verbosity(std::int32_t verbosity) = 0;
  // The pid the world knows.
  [[nodiscard]] virtual Pid public_pid() const = 0;
  virtual std::string report(std::string_view kind) = 0;  // "state", "json", "status"
  // Living workers only; a pid of 0: it is being started.
  [[nodiscard]] virtual std::optional<WorkerId> worker_with(Pid pid) const = 0;
  [[nodiscard]] virtual Pid pid_of(WorkerId worker) const = 0;
  // Pids of all workers that a signal would go to, and whether each got it.
  virtual std::vector<Pid> signal_all(int signal) = 0;
  [[nodiscard]] virtual std::vector<Pid> worker_pids() const = 0;
  // Records a new version of the program and begins; an error: nothing was begun.
  virtual Status begin_upgrade(bool smooth, bool rollback) = 0;
  // The same, to a Ruby Einhorn that --reexec-as names.
  virtual Status begin_leaving_to_ruby(bool smooth) = 0;
  // A new master beside this one, which reads the config file again, if there is one. An error:
  // nothing was begun; of the file its first mistake.
  virtual Status reload_config() = 0;
  virtual void ack(const os::Peer& peer, Pid pid) = 0;
  virtual void ping(const os::Peer& peer, Pid pid, WorkerPing said) = 0;
  // Gives everything to who asks, and stops acting until that one says it acts. False: there is a
  // guard, which is not to be disturbed.
  virtual bool hand_over(Connection& connection) = 0;
  virtual void tell(LogLine line) = 0;
  // Answers, and from then on that client gets events. False: there are too many.
  virtual bool subscribe(CommandServer& server, Connection& connection,
                         const EventStream::Wish& wish, const wire::Request& request) = 0;
  // Somebody has said a command that may change something; it is carried out next.
  virtual void commanded(const Connection& connection, std::string_view command,
                         const wire::Value* args) = 0;
};

class Commands {
 public:
  explicit Commands(CommandTarget& target) : target_(target) {}
  struct Answer {
    std::optional<std::string> message;  // none: nothing is said (any more)
    std::string status = "ok";
  };
  // `inc` and `dec`, also by signal.
  Answer change_number(bool up);
  [[nodiscard]] std::string outside_of_scaling(std::uint32_t wanted) const;
  void handle(CommandServer& server, Connection& connection, const wire::Request& request);

 private:
  struct Call {
    CommandServer& server;
    Connection& connection;
    const wire::Request& request;
    std::vector<std::string> args;
    bool has_args = false;
  };
  struct Spec {
    std::string_view name;
    std::string_view help;  // "": not listed
    Answer (Commands::*run)(Call&);
  };
  static const std::vector<Spec>& table();

  [[nodiscard]] static Answer error(std::string message) { return {std::move(message), "error"}; }
  [[nodiscard]] std::optional<Answer> check_args(Call& call) const;
  [[nodiscard]] std::string descriptions() const;
  Answer refuse(std::string message);
  Answer start_upgrade(Call& call, bool smooth);
  [[nodiscard]] Result<const pool::Worker*> find_worker(const std::string& given) const;

  Answer ehlo(Call& call);
  Answer help(Call& call);
  Answer state(Call& call);
  Answer status(Call& call);
  Answer inc(Call& call);
  Answer dec(Call& call);
  Answer set_workers(Call& call);
  Answer quieter(Call& call);
  Answer louder(Call& call);
  Answer signal(Call& call);
  Answer die(Call& call);
  Answer stop_worker(Call& call);
  Answer config(Call& call);
  Answer upgrade(Call& call);
  Answer upgrade_fleet(Call& call);
  Answer rollback(Call& call);
  Answer reload(Call& call);
  Answer worker_ack(Call& call);
  Answer worker_ping(Call& call);
  Answer guard_takeover(Call& call);
  Answer subscribe(Call& call);

  CommandTarget& target_;
};

// Merges one known key into a configuration. Errors name the key, the value and what is allowed.
[[nodiscard]] Status merge_config(pool::Config& config, std::string_view key,
                                  const wire::Value& value);

}  // namespace einhorn::master
