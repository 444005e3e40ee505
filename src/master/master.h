// The master: it carries out what the pool decides.
//
// One turn of the loop: wait; take in what the guard, the clients, the workers and the clock say,
// each as an event for the pool; carry out the pool's actions in their order, whose outcomes are
// events again; note what changed in the snapshot; and only then let answers go out. A command that
// was answered has therefore survived the master's death.
//
// It lives in a Kernel (os/kernel.h) and owns nothing outside it, so the whole master runs in the
// simulation. Everything it knows comes from the snapshot that it was started with.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "master/command_server.h"
#include "master/commands.h"
#include "master/guard_link.h"
#include "master/interceptor.h"
#include "master/journal.h"
#include "master/log.h"
#include "master/narrate.h"
#include "master/roster.h"
#include "os/kernel.h"
#include "pool/pool.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// The path of a program with its directory's links resolved, so that a link that moves later does
// not change which program a version runs. The last name is kept: programs look at it.
[[nodiscard]] std::string pin_program(os::Kernel& kernel, const std::string& path,
                                      const std::string& directory);

class Master final : public CommandTarget {
 public:
  // Takes over from the snapshot that the guard hands out on `control`; waits for it for
  // `patience` at most. Errors: it can't be read, or something in it is missing.
  static Result<std::unique_ptr<Master>> create(os::Kernel& kernel, int control, Duration patience,
                                                std::vector<std::string> environment);
  ~Master() override;

  // One turn. False: it is over, and the guard knows with which exit status.
  bool turn();

  [[nodiscard]] const pool::Pool& pool() const override { return *pool_; }
  [[nodiscard]] const wire::Settings& settings() const override { return settings_; }
  // What `ps` shows of master and guard.
  [[nodiscard]] std::string title() const;

 private:
  struct Descriptors {
    int command = -1;
    int notify = -1;
    int snapshot = -1;
    std::map<std::uint32_t, int> listeners;
    std::map<std::uint64_t, int> connections;
    std::vector<std::pair<std::string, int>> interception;
  };

  Master(os::Kernel& kernel, int control);

  // start.cpp: from the snapshot to the first turn
  Status receive(Duration patience);
  Status restore();
  void remake_socket(const std::string& name, const std::string& path, bool listening, int& socket);
  Status place_descriptors();
  Status take_turn();
  void restore_worker(wire::WorkerRecord record);
  void restore_interception();
  void adopt_connections(const std::map<std::uint64_t, wire::ConnectionRecord>& records);
  void resume();

  // master.cpp: the loop and what comes in
  static constexpr std::uint64_t kControlToken = 1;
  static constexpr std::uint64_t kNotifyToken = 2;
  void watch_guard();
  [[nodiscard]] bool acting() const {
    return !exit_code_ && !left_ && successor_ < 0 && handoff_.stage != Handoff::Stage::kFrozen;
  }
  void on_ready(const os::Ready& ready);
  void on_guard();
  void on_guard_gone();
  void on_guard_signal(int signal);
  void on_child_ended(Pid pid, os::Ended how);
  void on_worker_dead(std::uint32_t slot);
  void on_worker_message();
  void take_worker_message(WorkerId worker, std::string_view text);
  void exited(WorkerId worker, pool::ExitStatus status);
  void check_wall_clock();
  std::optional<Instant> next_deadline();

  // handoff.cpp: a new master beside this one
  struct Handoff {
    enum class Stage { kNone, kChecking, kBooting, kFrozen };
    Stage stage = Stage::kNone;
    Pid pid = 0;  // of the check, then of the new master
    int pidfd = -1;
    Instant deadline;
    int control = -1;  // the guard's end, as long as it has not got it
  };
  Result<os::SpawnSpec> successor_spec(const std::vector<std::string>& flags);
  Result<os::Spawned> spawn_beside(const os::SpawnSpec& spec);
  void boot_successor();
  void become_ruby();
  Status write_all_down();
  bool on_handoff_child(Pid pid, os::Ended how);
  void on_handoff_deadline();
  void fail_handoff(const std::string& reason);
  void freeze();
  void unfreeze();
  bool successor_acts();
  bool handoff_turn();
  Status upgrade_pool(bool smooth, bool rollback);
  void resume_upgrade();

  // takeover.cpp: handing everything to a new guard, after the old one has died
  bool frozen_turn();
  void send_descriptors();
  bool thaw();

  // execute.cpp: actions
  void drain_events();
  void carry_out(const pool::Action& action);
  void spawn(const pool::Spawn& action);
  void note_worker(WorkerId id);
  [[nodiscard]] bool has_renice_command() const;
  bool renice(Pid pid, int level);
  void tell_nice_failed(const std::string& who, int level, const Error& error);
  [[nodiscard]] os::SpawnSpec spawn_spec(const pool::Spawn& action, const wire::Program& program);
  void leave(int exit_code);
  void say(const pool::Note& note);
  void persist();
  [[nodiscard]] wire::Snapshot snapshot() const;

  // CommandTarget
  void apply(const pool::Event& event) override;
  void set_verbosity(std::int32_t verbosity) override;
  [[nodiscard]] Pid public_pid() const override { return public_pid_; }
  std::string report(std::string_view kind) override;
  std::vector<Pid> signal_all(int signal) override;
  [[nodiscard]] std::vector<Pid> worker_pids() const override;
  Status begin_upgrade(bool smooth, bool rollback) override;
  Status begin_leaving_to_ruby(bool smooth) override;
  Status begin_reload() override;
  void ack(const os::Peer& peer, Pid pid) override;
  void ping(const os::Peer& peer, Pid pid, std::string request_id) override;
  bool hand_over(Connection& connection) override;
  void tell(LogLine line) override { log_->write(line); }

  [[nodiscard]] std::optional<WorkerId> sender(const os::Peer& peer, Pid claimed);
  Result<wire::Program> record_program(Version version);
  void forget_programs();

  os::Kernel& kernel_;
  GuardLink guard_;
  Descriptors descriptors_;
  wire::Settings settings_;
  std::map<Version, wire::Program> programs_;
  std::map<std::uint32_t, wire::ListenerRecord> listeners_;
  std::unique_ptr<pool::Pool> pool_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Roster> roster_;
  std::unique_ptr<Interceptor> interceptor_;  // null: nothing is intercepted
  std::unique_ptr<CommandServer> server_;
  Commands commands_;
  PidOf pid_of_;
  std::deque<pool::Event> events_;
  bool stepping_ = false;
  Instant now_;
  Instant wall_checked_at_;
  Pid public_pid_ = 0;
  Pid own_pid_ = 0;
  std::set<Pid> renicers_;  // processes of --nice's RENICE_CMD
  std::optional<int> exit_code_;
  bool left_ = false;  // another master acts
  Handoff handoff_;
  bool to_ruby_ = false;                  // the hand-off under way is one to a Ruby master
  std::vector<std::string> environment_;  // of this process
  bool successor_of_master_ = false;
  int successor_ = -1;  // while frozen: the socket to who is taking over
  std::string successor_said_;
  bool settings_dirty_ = false;
  bool programs_dirty_ = false;
  bool guard_watched_for_room_ = false;
  int keep_below_ = 256;
  std::vector<os::DescriptorMove> moves_;
};

}  // namespace einhorn::master
