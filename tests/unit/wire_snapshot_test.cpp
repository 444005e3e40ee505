// The snapshot: everything written is read again, field by field.
#include "wire_snapshot_support.h"

namespace einhorn::wire {
namespace testing {

using std::chrono::milliseconds;
using std::chrono::seconds;

Instant at(std::int64_t nanoseconds) { return Instant{Duration{nanoseconds}}; }

// Every field has a value of its own that is not its default.
Settings full_settings() {
  Settings s;
  s.name = "shop";
  s.socket_path = "/run/a.sock";
  s.socket_path_given = "a.sock";
  s.pidfile = "/run/b.pid";
  s.pidfile_given = "b.pid";
  s.lockfile = "/run/c.lock";
  s.lockfile_given = "c.lock";
  s.socket_mode = 0660;
  s.socket_group = "staff";
  s.verbosity = 2;
  s.log_json = true;
  s.log_file = "/var/log/d";
  s.command_socket_as_fd = true;
  s.kill_children_on_exit = true;
  s.nice_master = -5;
  s.nice_worker = 7;
  s.renice_command = "/bin/renice";
  s.reexec_commandline = {"e", "f"};
  s.drop_environment = {"G"};
  s.original_command = {"h", "", "i j"};
  s.directory = "/srv";
  s.start_environment = {"K=l", "M=n\no"};
  s.inherited = {5, 9};
  s.backlog = 77;
  s.max_unacked_given = 3;
  s.gc_before_fork = true;
  s.script = "./einhorn";
  s.wall_offset = WallOffset{1234567890123};
  s.generation = 11;
  s.started = true;
  s.guard_lost = true;
  s.first_descriptor = 6;
  s.started_at = at(99);
  s.guard_pid = 4321;
  s.notify_path = "/run/p.notify";
  s.current_directory = "/srv/here";
  s.control = 205;
  s.pending_upgrades = 2;
  s.pending_smooth = false;
  s.pending_rollback = false;
  s.intercept = Interception::kPreload;
  s.intercept_all = true;
  s.intercept_io_uring = true;
  s.intercept_rules = {"3000=80", "unix:/s=web"};
  s.intercept_library = "/usr/lib/t.so";
  s.preload = "v.py";
  s.preload_command = {"w", "x y"};
  s.preload_language = "perl";
  s.preload_interpreter = "/opt/z";
  s.preload_fallback = true;
  s.preload_timeout = seconds{61};
  s.intercept_door = "0004a";
  s.intercept_secret = "00112233445566778899aabbccddeeff";
  s.intercept_drain = seconds{31};
  s.listen_probe = "http:/health";
  s.agent = "[::1]:9101";
  s.agent_arguments = {"--history", "h.db"};
  s.files = {{"/run/q", 12, 13}, {"/run/r", 14, 15}};
  return s;
}

pool::Config full_config() {
  pool::Config c;
  c.number = 12;
  c.ack_mode = pool::AckMode::kNotify;
  c.ack_delay = milliseconds{1300};
  c.ack_timeout = seconds{14};
  c.seconds = milliseconds{1500};
  c.max_unacked = 16;
  c.max_unacked_given = true;
  c.max_upgrade_additional = 17;
  c.signal_timeout = seconds{18};
  c.drain_timeout = seconds{19};
  c.stop_signal = SIGTERM;
  c.give_up = 20;
  c.canary = 21;
  c.canary_seconds = seconds{22};
  c.upgrade_failures = 23;
  c.upgrade_timeout = seconds{24};
  return c;
}

pool::Ledger full_ledger() {
  pool::Ledger l;
  l.version = Version{31};
  l.newest = Version{32};
  l.proved = Version{33};
  l.previous = Version{34};
  l.next_epoch = 35;
  l.deaths_before_ack = 36;
  l.burst_left = 37;
  l.deaths = 38;
  l.last_spinup = at(39);
  l.last_upgraded = at(40);
  l.respawn = false;
  l.failed = true;
  l.left = true;
  l.failure = "it burned";
  l.upgrade = pool::UpgradeProgress{Version{41}, Version{42}, false,  false,         true,
                                    true,        43,          at(44), {"one", "two"}};
  l.quick_deaths = 45;
  l.quick_deaths_since = at(46);
  return l;
}

Program full_program() {
  return {Version{31},   "/srv/app",      "/srv/app/run",           {"run", "-p", "{fd}"},
          {"A=b", "C="}, "/usr/bin/perl", {"perl", "load", "v.pl"}, true};
}

ListenerRecord full_listener(std::uint32_t index) {
  ListenerRecord l;
  l.index = index;
  l.text = "localhost:80,r";
  l.host = "localhost";
  l.port_given = 80;
  l.flags = {"r", "n"};
  l.address = "127.0.0.1:8080";
  l.port = 8080;
  l.name = "web";
  l.bind_index = 2;
  l.from_argument = true;
  l.backlog = 55;
  l.backup = "/run/u";
  l.as_stdin = true;
  return l;
}

WorkerRecord full_worker(std::uint32_t slot, std::uint64_t epoch) {
  WorkerRecord record;
  pool::Worker& w = record.worker;
  w.id = {Slot{slot}, Epoch{epoch}};
  w.version = Version{51};
  w.state = pool::WorkerState::kStopping;
  w.spawned_at = at(52);
  w.acked_at = at(53);
  w.signaled.add(SIGUSR2);
  w.signaled.add(SIGKILL);
  w.last_signaled_at = at(54);
  w.missed_ack = true;
  w.stop_wanted = true;
  w.stop_with = SIGTERM;
  w.pinged_at = at(55);
  w.pinged_request_id = "\"x\"";
  w.status_text = "busy";
  record.pid = 56;
  record.orphan = true;
  record.withheld = 15;
  record.fork_id = 66;
  record.asked_of = 67;
  return record;
}

Snapshot full_snapshot() {
  Snapshot snapshot;
  snapshot.settings = full_settings();
  snapshot.config = full_config();
  snapshot.ledger = full_ledger();
  snapshot.programs[Version{31}] = full_program();
  snapshot.listeners[0] = full_listener(0);
  snapshot.listeners[1] = full_listener(1);
  snapshot.workers[Epoch{57}] = full_worker(3, 57);
  snapshot.workers[Epoch{58}] = full_worker(4, 58);
  snapshot.zygotes[63] = {63, Version{31}, 64, true, 65, 68};
  return snapshot;
}

// As in a memory file: the page of the spawn note, then the journal.
std::string file_of(const std::string& journal) {
  return std::string(kJournalStart, '\0') + journal;
}

// The journal says everything there is, so equal journals are equal snapshots.
void expect_same(const Snapshot& snapshot, const Snapshot& wanted) {
  EXPECT_EQ(encode_journal(snapshot), encode_journal(wanted));
}

Snapshot decode(const std::string& journal) {
  Result<Snapshot> snapshot = decode_snapshot(file_of(journal));
  EXPECT_TRUE(snapshot.has_value()) << (snapshot ? "" : snapshot.error().message());
  return snapshot ? std::move(*snapshot) : Snapshot{};
}

// Stands for any value; never defined, as it is never evaluated.
struct Anything {
  template <typename T>
  operator T&() const;  // NOLINT: to whatever is asked for
};

}  // namespace testing

namespace {

using namespace testing;  // NOLINT: the values of above
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// How many fields an aggregate has.
template <typename T, typename... Given>
constexpr std::size_t count_fields() {
  if constexpr (requires { T{Given{}..., Anything{}}; }) {
    return count_fields<T, Given..., Anything>();
  } else {
    return sizeof...(Given);
  }
}
// A new field needs its line in the snapshot's fields() and in the tests of every field below.
static_assert(count_fields<Settings>() == 79);
static_assert(count_fields<Privileges>() == 16);
static_assert(count_fields<OwnFile>() == 3);
static_assert(count_fields<pool::Config>() == 23);
static_assert(count_fields<pool::Ledger>() == 17);
static_assert(count_fields<pool::UpgradeProgress>() == 9);
static_assert(count_fields<pool::Worker>() == 23);
static_assert(count_fields<Program>() == 8);
static_assert(count_fields<ListenerRecord>() == 16);
static_assert(count_fields<ZygoteRecord>() == 6);
static_assert(count_fields<WorkerRecord>() == 6);
static_assert(count_fields<HookRecord>() == 10);

// --- round trip ---------------------------------------------------------------------------------
TEST(Snapshot, EveryFieldGoesThereAndBack) {
  const Snapshot wanted = full_snapshot();
  const Snapshot read = decode(encode_journal(wanted));
  expect_same(read, wanted);
  EXPECT_THAT(read.damage, IsEmpty());
  EXPECT_EQ(read.journal_bytes, encode_journal(wanted).size());
}

// Equal bytes prove nothing of a field that is not written at all: so each is looked at.
TEST(Snapshot, SettingsComeBackFieldByField) {
  const Settings s = decode(encode_journal(full_snapshot())).settings;
  const Settings w = full_settings();
  EXPECT_EQ(s.name, w.name);
  EXPECT_EQ(s.socket_path, w.socket_path);
  EXPECT_EQ(s.socket_path_given, w.socket_path_given);
  EXPECT_EQ(s.pidfile, w.pidfile);
  EXPECT_EQ(s.pidfile_given, w.pidfile_given);
  EXPECT_EQ(s.lockfile, w.lockfile);
  EXPECT_EQ(s.lockfile_given, w.lockfile_given);
  EXPECT_EQ(s.socket_mode, w.socket_mode);
  EXPECT_EQ(s.socket_group, w.socket_group);
  EXPECT_EQ(s.verbosity, w.verbosity);
  EXPECT_EQ(s.log_json, w.log_json);
  EXPECT_EQ(s.log_file, w.log_file);
  EXPECT_EQ(s.command_socket_as_fd, w.command_socket_as_fd);
  EXPECT_EQ(s.kill_children_on_exit, w.kill_children_on_exit);
  EXPECT_EQ(s.nice_master, w.nice_master);
  EXPECT_EQ(s.nice_worker, w.nice_worker);
  EXPECT_EQ(s.renice_command, w.renice_command);
  EXPECT_EQ(s.reexec_commandline, w.reexec_commandline);
  EXPECT_EQ(s.drop_environment, w.drop_environment);
  EXPECT_EQ(s.original_command, w.original_command);
  EXPECT_EQ(s.directory, w.directory);
  EXPECT_EQ(s.start_environment, w.start_environment);
  EXPECT_EQ(s.inherited, w.inherited);
  EXPECT_EQ(s.backlog, w.backlog);
  EXPECT_EQ(s.max_unacked_given, w.max_unacked_given);
  EXPECT_EQ(s.gc_before_fork, w.gc_before_fork);
  EXPECT_EQ(s.script, w.script);
  EXPECT_EQ(s.wall_offset, w.wall_offset);
  EXPECT_EQ(s.generation, w.generation);
  EXPECT_EQ(s.started, w.started);
  EXPECT_EQ(s.guard_lost, w.guard_lost);
  EXPECT_EQ(s.first_descriptor, w.first_descriptor);
  EXPECT_EQ(s.started_at, w.started_at);
  EXPECT_EQ(s.guard_pid, w.guard_pid);
  EXPECT_EQ(s.notify_path, w.notify_path);
  EXPECT_EQ(s.current_directory, w.current_directory);
  EXPECT_EQ(s.control, w.control);
  EXPECT_EQ(s.pending_upgrades, w.pending_upgrades);
  EXPECT_EQ(s.pending_smooth, w.pending_smooth);
  EXPECT_EQ(s.pending_rollback, w.pending_rollback);
  EXPECT_EQ(s.intercept, w.intercept);
  EXPECT_EQ(s.intercept_all, w.intercept_all);
  EXPECT_EQ(s.intercept_io_uring, w.intercept_io_uring);
  EXPECT_EQ(s.intercept_rules, w.intercept_rules);
  EXPECT_EQ(s.intercept_library, w.intercept_library);
  EXPECT_EQ(s.preload, w.preload);
  EXPECT_EQ(s.preload_command, w.preload_command);
  EXPECT_EQ(s.preload_language, w.preload_language);
  EXPECT_EQ(s.preload_interpreter, w.preload_interpreter);
  EXPECT_EQ(s.preload_fallback, w.preload_fallback);
  EXPECT_EQ(s.preload_timeout, w.preload_timeout);
  EXPECT_EQ(s.intercept_door, w.intercept_door);
  EXPECT_EQ(s.intercept_secret, w.intercept_secret);
  EXPECT_EQ(s.intercept_drain, w.intercept_drain);
  EXPECT_EQ(s.listen_probe, w.listen_probe);
  EXPECT_EQ(s.agent, w.agent);
  EXPECT_EQ(s.agent_arguments, w.agent_arguments);
  ASSERT_EQ(s.files.size(), 2u);
  EXPECT_EQ(s.files[1].path, "/run/r");
  EXPECT_EQ(s.files[1].device, 14u);
  EXPECT_EQ(s.files[1].inode, 15u);
}

TEST(Snapshot, ConfigComesBackFieldByField) {
  const pool::Config c = decode(encode_journal(full_snapshot())).config;
  const pool::Config w = full_config();
  EXPECT_EQ(c.number, w.number);
  EXPECT_EQ(c.ack_mode, w.ack_mode);
  EXPECT_EQ(c.ack_delay, w.ack_delay);
  EXPECT_EQ(c.ack_timeout, w.ack_timeout);
  EXPECT_EQ(c.seconds, w.seconds);
  EXPECT_EQ(c.max_unacked, w.max_unacked);
  EXPECT_EQ(c.max_unacked_given, w.max_unacked_given);
  EXPECT_EQ(c.max_upgrade_additional, w.max_upgrade_additional);
  EXPECT_EQ(c.signal_timeout, w.signal_timeout);
  EXPECT_EQ(c.drain_timeout, w.drain_timeout);
  EXPECT_EQ(c.stop_signal, w.stop_signal);
  EXPECT_EQ(c.give_up, w.give_up);
  EXPECT_EQ(c.canary, w.canary);
  EXPECT_EQ(c.canary_seconds, w.canary_seconds);
  EXPECT_EQ(c.upgrade_failures, w.upgrade_failures);
  EXPECT_EQ(c.upgrade_timeout, w.upgrade_timeout);
}

TEST(Snapshot, LedgerComesBackFieldByField) {
  const pool::Ledger l = decode(encode_journal(full_snapshot())).ledger;
  const pool::Ledger w = full_ledger();
  EXPECT_EQ(l.version, w.version);
  EXPECT_EQ(l.newest, w.newest);
  EXPECT_EQ(l.proved, w.proved);
  EXPECT_EQ(l.previous, w.previous);
  EXPECT_EQ(l.next_epoch, w.next_epoch);
  EXPECT_EQ(l.deaths_before_ack, w.deaths_before_ack);
  EXPECT_EQ(l.burst_left, w.burst_left);
  EXPECT_EQ(l.deaths, w.deaths);
  EXPECT_EQ(l.last_spinup, w.last_spinup);
  EXPECT_EQ(l.last_upgraded, w.last_upgraded);
  EXPECT_EQ(l.respawn, w.respawn);
  EXPECT_EQ(l.failed, w.failed);
  EXPECT_EQ(l.left, w.left);
  EXPECT_EQ(l.failure, w.failure);
  ASSERT_TRUE(l.upgrade.has_value());
  EXPECT_EQ(l.upgrade->from, w.upgrade->from);
  EXPECT_EQ(l.upgrade->to, w.upgrade->to);
  EXPECT_EQ(l.upgrade->smooth, w.upgrade->smooth);
  EXPECT_EQ(l.upgrade->rollback, w.upgrade->rollback);
  EXPECT_EQ(l.upgrade->going_back, w.upgrade->going_back);
  EXPECT_EQ(l.upgrade->proved, w.upgrade->proved);
  EXPECT_EQ(l.upgrade->failures, w.upgrade->failures);
  EXPECT_EQ(l.upgrade->started_at, w.upgrade->started_at);
  EXPECT_EQ(l.upgrade->reports, w.upgrade->reports);
  EXPECT_EQ(l.quick_deaths, w.quick_deaths);
  EXPECT_EQ(l.quick_deaths_since, w.quick_deaths_since);
}

TEST(Snapshot, ProgramsListenersAndWorkersComeBackFieldByField) {
  const Snapshot read = decode(encode_journal(full_snapshot()));
  const Program& p = read.programs.at(Version{31});
  EXPECT_EQ(p.version, Version{31});
  EXPECT_EQ(p.directory, "/srv/app");
  EXPECT_EQ(p.path, "/srv/app/run");
  EXPECT_THAT(p.arguments, ElementsAre("run", "-p", "{fd}"));
  EXPECT_THAT(p.environment, ElementsAre("A=b", "C="));
  EXPECT_EQ(p.zygote, "/usr/bin/perl");
  EXPECT_THAT(p.zygote_arguments, ElementsAre("perl", "load", "v.pl"));
  EXPECT_TRUE(p.postload);

  const ZygoteRecord& z = read.zygotes.at(63);
  EXPECT_EQ(z.number, 63u);
  EXPECT_EQ(z.version, Version{31});
  EXPECT_EQ(z.pid, 64);
  EXPECT_TRUE(z.loaded);
  EXPECT_EQ(z.asked_below, 65u);
  EXPECT_EQ(z.guard, 68);

  const ListenerRecord& l = read.listeners.at(1);
  EXPECT_EQ(l.index, 1u);
  EXPECT_EQ(l.text, "localhost:80,r");
  EXPECT_EQ(l.host, "localhost");
  EXPECT_EQ(l.port_given, 80);
  EXPECT_THAT(l.flags, ElementsAre("r", "n"));
  EXPECT_EQ(l.address, "127.0.0.1:8080");
  EXPECT_EQ(l.port, 8080);
  EXPECT_EQ(l.name, "web");
  EXPECT_EQ(l.bind_index, 2u);
  EXPECT_TRUE(l.from_argument);
  EXPECT_EQ(l.backlog, 55);
  EXPECT_EQ(l.backup, "/run/u");

  const WorkerRecord& r = read.workers.at(Epoch{58});
  EXPECT_EQ(r.pid, 56);
  EXPECT_TRUE(r.orphan);
  EXPECT_EQ(r.withheld, 15);
  EXPECT_EQ(r.fork_id, 66u);
  EXPECT_EQ(r.asked_of, 67u);
  const pool::Worker& w = r.worker;
  EXPECT_EQ(w.id, (WorkerId{Slot{4}, Epoch{58}}));
  EXPECT_EQ(w.version, Version{51});
  EXPECT_EQ(w.state, pool::WorkerState::kStopping);
  EXPECT_EQ(w.spawned_at, at(52));
  EXPECT_EQ(w.acked_at, at(53));
  EXPECT_THAT(w.signaled.numbers(), ElementsAre(SIGKILL, SIGUSR2));
  EXPECT_EQ(w.last_signaled_at, at(54));
  EXPECT_TRUE(w.missed_ack);
  EXPECT_TRUE(w.stop_wanted);
  EXPECT_EQ(w.stop_with, SIGTERM);
  EXPECT_EQ(w.pinged_at, at(55));
  EXPECT_EQ(w.pinged_request_id, "\"x\"");
  EXPECT_EQ(w.status_text, "busy");
}

TEST(Snapshot, WhatIsNotSetStaysNotSet) {
  Snapshot empty;
  const Snapshot read = decode(encode_journal(empty));
  EXPECT_EQ(read.settings.nice_master, std::nullopt);
  EXPECT_EQ(read.config.seconds, std::nullopt);
  EXPECT_EQ(read.config.signal_timeout, std::nullopt);
  EXPECT_EQ(read.ledger.upgrade.has_value(), false);
  EXPECT_EQ(read.ledger.last_spinup, std::nullopt);
  EXPECT_TRUE(read.ledger.respawn);
}

}  // namespace
}  // namespace einhorn::wire
