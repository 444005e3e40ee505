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

#include "master/agent_keeper.h"
#include "master/capture.h"
#include "master/cgroups.h"
#include "master/command_server.h"
#include "master/commands.h"
#include "master/configure.h"
#include "master/drains.h"
#include "master/event_stream.h"
#include "master/examiner.h"
#include "master/guard_link.h"
#include "master/hook_runner.h"
#include "master/interceptor.h"
#include "master/journal.h"
#include "master/load_watch.h"
#include "master/log.h"
#include "master/narrate.h"
#include "master/prober.h"
#include "master/report.h"
#include "master/roster.h"
#include "master/service_manager.h"
#include "master/shares.h"
#include "master/zygotes.h"
#include "os/kernel.h"
#include "pool/pool.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Master final : public CommandTarget {
 public:
  // Takes over from the snapshot that the guard hands out on `control`; waits for it for
  // `patience` at most. Errors: it can't be read, or something in it is missing.
  // `read_config` reads a command line and the config file that it names again.
  static Result<std::unique_ptr<Master>> create(os::Kernel& kernel, int control, Duration patience,
                                                std::vector<std::string> environment,
                                                ReadConfig read_config = {});
  ~Master() override;

  // One turn. False: it is over, and the guard knows with which exit status.
  bool turn();

  [[nodiscard]] const pool::Pool& pool() const override { return *pool_; }
  [[nodiscard]] const wire::Settings& settings() const override { return settings_; }
  [[nodiscard]] std::size_t zygotes() const { return zygotes_ ? zygotes_->count() : 0; }
  [[nodiscard]] std::size_t hooks() const { return hooks_->count(); }
  // What `ps` shows of master and guard.
  [[nodiscard]] std::string title() const;

 private:
  struct Descriptors {
    int command = -1;
    int notify = -1;
    int snapshot = -1;
    std::map<std::uint32_t, int> listeners;
    std::map<std::uint64_t, int> connections;
    std::vector<std::pair<std::string, int>> others;  // of whoever claims them
  };

  Master(os::Kernel& kernel, int control);

  // start.cpp: from the snapshot to the first turn
  Status receive(Duration patience);
  Status restore();
  void remake_socket(const std::string& name, const std::string& path, bool listening, int& socket);
  Status place_descriptors();
  Status take_turn();
  void restore_worker(const wire::WorkerRecord& record);
  void restore_companions();
  void on_listening(WorkerId worker, bool probed);
  void probe_all();
  void adopt_connections(const std::map<std::uint64_t, wire::ConnectionRecord>& records);
  [[nodiscard]] CommandServer::Keep worth_of(const Connection& connection) const;
  void resume();

  // preloading.cpp: workers that a zygote forks
  void restore_zygotes(const std::map<std::uint64_t, wire::ZygoteRecord>& records);
  [[nodiscard]] Zygotes::Hooks zygote_hooks();
  void start_zygotes(bool same_guard);
  [[nodiscard]] bool is_preloaded(Version version) const;
  [[nodiscard]] os::SpawnSpec zygote_spec(Version version);
  [[nodiscard]] std::vector<std::string> variables_of(WorkerId worker);
  bool on_forked(WorkerId worker, Pid pid, bool foreign);
  [[nodiscard]] std::set<Version> versions_to_preload() const;
  bool fall_back(Version version);
  void add_zygotes(ReportInput& input);

  // hooks.cpp: commands before and after what the pool does
  void restore_hooks(const std::map<std::uint64_t, wire::HookRecord>& records);
  void start_hooks(bool same_guard);
  [[nodiscard]] Result<os::SpawnSpec> hook_spec(const wire::HookRecord& record);
  void run_hook(pool::Hook hook, WorkerId worker, Version version,
                std::vector<std::string> variables);
  void run_hooks_after(const pool::Note& note);
  void on_hook_ended(const HookRunner::Ended& ended);
  void begin_pending_upgrade();
  void finish_pending_upgrade();
  void refuse_pending_upgrade(const HookRunner::Ended& ended);

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
  void tell_manager();
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
  Status begin_reload();
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

  // reload.cpp: the configuration, read again
  [[nodiscard]] Status check_config() const;
  void take_config();
  void change_log(const Options& options);
  Status change_sockets(const std::vector<os::BindSpec>& binds);
  Status open_added(const std::vector<os::BindSpec>& binds);
  void remove_missing(const std::vector<os::BindSpec>& binds);
  void note_listener(const wire::ListenerRecord& record);
  void close_drained_sockets();

  // takeover.cpp: handing everything to a new guard, after the old one has died
  bool frozen_turn();
  void send_descriptors();
  bool thaw();

  // execute.cpp: actions
  void drain_events();
  void carry_out(const pool::Action& action);
  [[nodiscard]] bool withhold(const pool::SendSignal& signal, const Roster::Process& process);
  void deliver_withheld(WorkerId worker, int signal);
  [[nodiscard]] wire::WorkerRecord record_of(const pool::Worker& worker) const;
  void spawn(const pool::Spawn& action);
  void note_worker(WorkerId id);
  [[nodiscard]] bool has_renice_command() const;
  bool renice(Pid pid, int level);
  void tell_nice_failed(const std::string& who, int level, const Error& error);
  [[nodiscard]] os::SpawnSpec spawn_spec(const pool::Spawn& action, const wire::Program& program,
                                         const std::vector<int>& own);
  [[nodiscard]] std::vector<std::uint32_t> sockets_of(Version version) const;
  [[nodiscard]] std::vector<int> open_own_sockets(Slot slot);
  void preload_library(os::SpawnSpec& spec, WorkerId worker) const;
  void leave_when_written();
  void leave(int exit_code);
  // capture_output.cpp: what dead workers said last, for the log and for whoever upgrades
  void ask_for_last_output(WorkerId worker);
  void tell_last_output(const LastOutput& last);
  void publish(std::string text, bool last, std::string status);
  void publish_what_waited();

  // health.cpp: looking at workers on the pool's behalf
  void take_samples(const pool::TakeSamples& action);
  void take_probe(WorkerId worker);
  void examine(WorkerId worker);
  void warn_unreadable(pool::Measure measure, Pid pid);
  void start_health();
  void say(const pool::Note& note);
  void persist();
  [[nodiscard]] wire::Snapshot snapshot() const;

  // events.cpp: the event stream
  void make_event_stream(std::uint64_t number);
  void announce_master();
  void tell_event(const pool::Event& event);
  void write_process(wire::JsonLine& line, Pid pid);
  void write_sample(wire::JsonLine& line);

  // CommandTarget
  void apply(const pool::Event& event) override;
  void set_verbosity(std::int32_t verbosity) override;
  [[nodiscard]] Pid public_pid() const override { return public_pid_; }
  std::string report(std::string_view kind) override;
  [[nodiscard]] std::optional<WorkerId> worker_with(Pid pid) const override {
    return roster_->find_pid(pid);
  }
  [[nodiscard]] Pid pid_of(WorkerId worker) const override { return roster_->pid_of(worker); }
  std::vector<Pid> signal_all(int signal) override;
  [[nodiscard]] std::vector<Pid> worker_pids() const override;
  Status begin_upgrade(bool smooth, bool rollback) override;
  Status begin_leaving_to_ruby(bool smooth) override;
  Status reload_config() override;
  void ack(const os::Peer& peer, Pid pid) override;
  void ping(const os::Peer& peer, Pid pid, WorkerPing said) override;
  bool hand_over(Connection& connection) override;
  void tell(LogLine line) override { log_->write(line); }
  bool subscribe(CommandServer& server, Connection& connection, const EventStream::Wish& wish,
                 const wire::Request& request) override;
  void commanded(const Connection& connection, std::string_view command,
                 const wire::Value* args) override;

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
  std::vector<Companion*> companions_;  // those that the loop serves
  std::unique_ptr<Capture> capture_;    // null: output is inherited
  std::unique_ptr<AgentKeeper> agent_;  // null: none is started beside the pool
  std::unique_ptr<Cgroups> cgroups_;    // null: workers are in no group of their own
  struct Publication {
    std::string text;
    bool last = false;
    std::string status;
  };
  std::vector<Publication> unpublished_;  // behind last lines that have been asked for
  std::optional<int> leaving_;            // the pool is over, its output not yet
  LoadWatch load_watch_;
  std::unique_ptr<Interceptor> interceptor_;  // null: nothing is intercepted
  std::unique_ptr<Zygotes> zygotes_;          // null: nothing is preloaded
  std::unique_ptr<HookRunner> hooks_;
  bool hurried_ = false;  // while it was leaving somebody asked for it to be quick
  Shares shares_;
  std::unique_ptr<Drains> drains_;  // null: stop signals are sent at once
  std::unique_ptr<Examiner> examiner_;
  std::unique_ptr<Prober> prober_;  // null: nobody is probed
  std::unique_ptr<CommandServer> server_;
  std::unique_ptr<EventStream> events_out_;
  std::optional<std::uint64_t> manager_words_;  // of the guard, about the service manager
  std::unique_ptr<ServiceManager> manager_;
  Commands commands_;
  PidOf pid_of_;
  std::deque<pool::Event> events_;
  bool stepping_ = false;
  Instant now_;
  Instant wall_checked_at_;
  Pid public_pid_ = 0;
  Pid own_pid_ = 0;
  std::set<pool::Measure> unreadable_;  // that was said
  std::set<Pid> renicers_;              // processes of --nice's RENICE_CMD
  std::optional<int> exit_code_;
  bool left_ = false;  // another master acts
  Handoff handoff_;
  bool to_ruby_ = false;                  // the hand-off under way is one to a Ruby master
  std::vector<std::string> environment_;  // of this process
  ReadConfig read_config_;
  bool successor_of_master_ = false;
  bool taken_over_ = false;  // from a living master, whose guard was dead
  int successor_ = -1;       // while frozen: the socket to who is taking over
  std::string successor_said_;
  bool settings_dirty_ = false;
  bool programs_dirty_ = false;
  bool guard_watched_for_room_ = false;
  int keep_below_ = 256;
};

}  // namespace einhorn::master
