// The snapshot: everything a master must know to go on where another one stopped.
//
// It is a journal in a memory file that the guard keeps: entries are only ever appended, the last
// one of a kind and key holds, and the cost of noting a change does not depend on the number of
// workers. The first page is not part of the journal (see os::SpawnNote). An entry has a checksum
// for its head and one for its body: a torn or damaged entry is skipped and counted, and loses only
// itself.
//
// Format of an entry, little-endian:
//   magic u32, kind u16, format u16, key u64, body length u32, body crc u32, head crc u32, body
// The body is a record of tagged fields (wire/tagged.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/result.h"
#include "pool/pool.h"

namespace einhorn::wire {

inline constexpr std::uint64_t kJournalStart = 4096;  // behind the page of the spawn note
inline constexpr std::uint16_t kSnapshotFormat = 1;

// What the command line said, apart from what the pool decides by.
// A file of ours that goes when the pool is over, if it is still the same one.
struct OwnFile {
  std::string path;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// How programs get shared sockets that do not know of it (--intercept).
enum class Interception { kOff, kSeccomp, kPreload };

// As whom and where workers run, and the master: looked up when the pool was started, or its
// options were read again. See os::Identity.
struct Privileges {
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::vector<std::uint32_t>> groups;
  std::string user_name;  // for USER and LOGNAME of workers; "" as they are
  std::string user_home;
  std::optional<std::uint32_t> umask;
  std::string root;
  bool no_new_privs = false;
  std::optional<std::uint64_t> capabilities;
  std::optional<std::int32_t> oom_score_adj;
  std::optional<std::int32_t> io_priority;
  std::vector<std::string> cpu_sets;  // worker I runs on the Ith, and so on in a ring
  // --master-user
  std::optional<std::uint32_t> master_uid;
  std::optional<std::uint32_t> master_gid;
  std::vector<std::uint32_t> master_groups;
  std::uint64_t master_capabilities = 0;
};

// As setrlimit(2) has it.
struct ResourceLimit {
  std::int32_t resource = 0;
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
};

struct Settings {
  std::string name;               // -c; "" none
  std::string socket_path;        // where the command socket is
  std::string socket_path_given;  // -d as given; "" not given
  std::string pidfile;            // where it is
  std::string pidfile_given;
  std::string lockfile;
  std::string lockfile_given;
  std::uint32_t socket_mode = 0600;
  std::string socket_group;
  std::int32_t verbosity = 1;  // 0 debug, 1 info, 2 errors
  bool log_json = false;
  std::string log_file;                // "" standard error
  bool command_socket_as_fd = false;   // -g
  bool kill_children_on_exit = false;  // -k
  std::optional<std::int32_t> nice_master;
  std::optional<std::int32_t> nice_worker;
  std::string renice_command = "/usr/bin/renice";
  std::vector<std::string> reexec_commandline;
  std::vector<std::string> drop_environment;
  std::vector<std::string> original_command;  // as on the command line
  std::string directory;                      // --chdir as given; "" the guard's own
  std::vector<std::string> start_environment;
  std::vector<std::int32_t> inherited;  // descriptors that workers inherit besides 0, 1, 2
  std::int32_t backlog = 100;
  std::optional<std::uint32_t> max_unacked_given;
  bool gc_before_fork = false;
  std::string script;  // how einhorn itself was called
  WallOffset wall_offset;
  std::uint64_t generation = 0;       // how many masters there have been before
  bool started = false;               // the pool has had its Started event
  bool guard_lost = false;            // nobody is above the master any more
  std::int32_t first_descriptor = 3;  // of the sockets, in workers
  std::optional<Instant> started_at;
  Pid guard_pid = 0;              // the guard that this snapshot was written under
  std::string notify_path;        // NOTIFY_SOCKET of workers
  std::string current_directory;  // of einhorn itself, or of what --reexec-as made of it
  std::int32_t control = 199;     // the number of a master's socket to its guard, at its start
  // Upgrades that begin as soon as the next master acts: one starts the other over.
  std::uint32_t pending_upgrades = 0;
  bool pending_smooth = true;
  bool pending_rollback = true;
  std::vector<OwnFile> files;
  Interception intercept = Interception::kOff;
  bool intercept_all = false;       // tell of every bind
  bool intercept_io_uring = false;  // io_uring stays as it is, and its binds are not seen
  std::vector<std::string> intercept_rules;
  std::string intercept_library;       // what is preloaded where there is no seccomp
  std::vector<std::string> variables;  // --env and --env-file, as NAME=VALUE
  // The command line, where it has to be read again: it names a config file, or files of variables.
  std::vector<std::string> arguments;
  Privileges privileges;
  std::vector<std::string> worker_binds;  // -b ADDR:PORT+index: each worker has its own
  bool pending_config = false;            // the next master reads `arguments` again
  // What `arguments` said when they were read last: what else holds now was changed by hand since.
  std::optional<pool::Config> configured;
  std::optional<std::int32_t> configured_verbosity;
  bool capture = false;                      // --capture: workers' output goes through a reader
  std::string capture_file;                  // where it goes; "" standard error
  std::string agent;                         // --agent: where it listens; "" none is started
  std::vector<std::string> agent_arguments;  // --agent-args, as words
  // Control groups: limits, 0 none; and the pool's directories, "CONTROLLER VERSION DIRECTORY".
  bool cgroup_per_worker = true;
  std::uint64_t cgroup_memory = 0;  // bytes
  std::uint32_t cgroup_cpu = 0;     // percent of one processor
  std::uint64_t cgroup_pids = 0;
  std::vector<std::string> cgroup_places;
  std::string intercept_door;    // and where it asks: an abstract name
  std::string intercept_secret;  // of which tokens of workers are made (os/door.h)
  Duration intercept_drain{0};   // --drain: how long a worker may finish before its stop signal
  std::string listen_probe;      // --listen-probe; "" none
  std::vector<ResourceLimit> resource_limits;  // of every worker
  // As given; master/probe_target.h says what they mean.
  std::string probe;
  std::string probe_address;
  std::string probe_command;
  // Preloading (docs/preload.md); all of it as given.
  std::string preload;                       // -p; "" none
  std::vector<std::string> preload_command;  // --preload-command, as words
  std::string preload_language;
  std::string preload_interpreter;
  bool preload_fallback = false;
  Duration preload_timeout = std::chrono::seconds{300};
  // Hooks (docs/hooks.md): the words of each one's command, in the order of pool::Hook.
  std::vector<std::vector<std::string>> hooks;
  Duration hook_timeout = std::chrono::seconds{30};
  Duration hook_upgrade_timeout = std::chrono::seconds{300};  // of those around an upgrade

  // Empty: there is none.
  [[nodiscard]] std::vector<std::string> hook(pool::Hook hook) const {
    const auto at = static_cast<std::size_t>(hook);
    return at < hooks.size() ? hooks[at] : std::vector<std::string>{};
  }
  [[nodiscard]] bool preloads() const { return !preload.empty() || !preload_command.empty(); }
};

// One version of the user's program, as it was when it was recorded.
struct Program {
  Version version;
  std::string directory;
  std::string path;                    // resolved
  std::vector<std::string> arguments;  // argv, before {fd} and the like are replaced
  std::vector<std::string> environment;
  std::string zygote;                         // the program that loads it; "" it is not preloaded
  std::vector<std::string> zygote_arguments;  // argv, without the command that comes behind
  bool postload = false;                      // it could not be preloaded and is executed instead
};

// A process that has a version's code loaded and forks its workers.
struct ZygoteRecord {
  std::uint64_t number = 0;  // its socket is kept as "zygote:NUMBER"
  Version version;
  Pid pid = 0;  // 0: it had not been started yet
  bool loaded = false;
  std::uint64_t asked_below = 0;  // whatever it has been asked for has a lower fork id
  Pid guard = 0;                  // whose child it was born as; 0: the master's own
};

// A hook that runs, or is about to (master/hook_runner.h).
struct HookRecord {
  std::uint64_t number = 0;  // its output is kept as "hook:NUMBER"
  pool::Hook hook = pool::Hook::kNone;
  WorkerId worker;  // epoch 0: of an upgrade
  Version version;
  std::vector<std::string> variables;
  Pid pid = 0;            // 0: it has not been started yet
  Instant started_at;     // if it has
  Instant deadline;       // of its time, then of its end
  bool given_up = false;  // nobody waits for it any more: it is being ended
  bool orphan = false;    // its parent was a guard that is dead
};

struct ListenerRecord {
  std::uint32_t index = 0;  // in the order of -b
  std::string text;         // -b as given
  std::string host;         // for `state`
  std::uint16_t port_given = 0;
  std::vector<std::string> flags;
  std::string address;
  std::uint16_t port = 0;
  std::string name;
  std::uint32_t bind_index = 0;  // which -b it came from: a name may have several addresses
  bool from_argument = false;    // srv: in the program's arguments instead of -b
  std::int32_t backlog = 0;      // of an intercepted program's listen
  std::string backup;            // another name of a unix socket's file; "" none
  // Versions from this one on have it, and, if it was taken out of the configuration, none from
  // `until` on: it is closed when the last worker of an older one is gone.
  Version since;
  std::optional<Version> until;
  // The guard may not have the socket: it has just been added, or is just being closed.
  bool tentative = false;
  bool as_stdin = false;  // it is the workers' descriptor 0, too
};

struct WorkerRecord {
  pool::Worker worker;
  Pid pid = 0;                 // 0 while Spawning
  bool orphan = false;         // its parent was a guard that is dead: nobody can ask how it ends
  std::int32_t withheld = 0;   // a stop signal that it gets when it has drained (--drain)
  std::uint64_t fork_id = 0;   // by which a zygote is asked for it; 0: none is, or it is there
  std::uint64_t asked_of = 0;  // the zygote's number; 0: that is still to be done
};

// A client whose connection outlives the master: it waits for an upgrade, or is handed on.
struct ConnectionRecord {
  std::uint64_t id = 0;
  Pid peer_pid = 0;
  std::uint32_t peer_uid = 0;
  std::uint32_t peer_gid = 0;
  std::string input;                       // a request that is not complete yet
  std::string output;                      // what it has not read yet
  std::vector<std::string> subscriptions;  // "j" or "y" and the request's id as JSON
  std::optional<std::uint64_t> events;     // it gets the event stream; a sample each so many ms
};

struct Snapshot {
  Settings settings;
  pool::Config config;
  pool::Ledger ledger;
  std::map<Version, Program> programs;
  std::map<std::uint32_t, ListenerRecord> listeners;
  std::map<Epoch, WorkerRecord> workers;
  std::map<std::uint64_t, ConnectionRecord> connections;
  std::map<std::uint64_t, ZygoteRecord> zygotes;
  std::map<Slot, pool::SlotTrouble> troubles;
  std::map<std::uint64_t, HookRecord> hooks;
  std::vector<std::string> damage;  // what could not be read, for the log
  std::size_t journal_bytes = 0;    // of the whole journal as read
};

// --- writing: one entry each --------------------------------------------------------------------
[[nodiscard]] std::string encode_entry(const Settings& settings);
[[nodiscard]] std::string encode_entry(const pool::Config& config);
[[nodiscard]] std::string encode_entry(const pool::Ledger& ledger);
[[nodiscard]] std::string encode_entry(const Program& program);
[[nodiscard]] std::string encode_entry(const ListenerRecord& listener);
[[nodiscard]] std::string encode_entry(const WorkerRecord& worker);
[[nodiscard]] std::string encode_entry(const ConnectionRecord& connection);
[[nodiscard]] std::string encode_entry(const pool::SlotTrouble& trouble);  // empty: forgotten
[[nodiscard]] std::string encode_gone(WorkerId worker);
[[nodiscard]] std::string encode_connection_gone(std::uint64_t id);
[[nodiscard]] std::string encode_gone(Version version);
[[nodiscard]] std::string encode_entry(const ZygoteRecord& zygote);
[[nodiscard]] std::string encode_zygote_gone(std::uint64_t number);
[[nodiscard]] std::string encode_entry(const HookRecord& hook);
[[nodiscard]] std::string encode_hook_gone(std::uint64_t number);
// A journal that holds just this.
[[nodiscard]] std::string encode_journal(const Snapshot& snapshot);

// --- reading ------------------------------------------------------------------------------------
// `file` is the whole memory file, the note's page included.
// Errors: no readable settings, or a listener that can't be read: without them no pool can go on.
[[nodiscard]] Result<Snapshot> decode_snapshot(std::string_view file);

}  // namespace einhorn::wire
