// A snapshot in which nothing is as it is by default, which the newest golden file holds; and that
// this is so of every field of every record in it.
#include <map>

#include "wire/tagged.h"
#include "wire_snapshot_support.h"

namespace einhorn::wire {
namespace testing {
namespace {

using std::chrono::seconds;

pool::HealthRules whole_health() {
  pool::HealthRules rules;
  rules.ping_timeout = seconds{11};
  rules.request_timeout = seconds{12};
  rules.dump_signal = 13;
  std::uint64_t value = 100;
  for (const pool::Measure measure : pool::kAllMeasures) {
    rules.of(measure) = {value + 1, value + 2, 2, 7};
    value += 10;
  }
  rules.cpu_window = seconds{14};
  rules.sample_interval = seconds{15};
  rules.max_age = seconds{16};
  rules.max_requests = 17;
  rules.jitter_percent = 18;
  rules.max_recycling = 19;
  rules.probe = {true, seconds{20}, seconds{21}, 22};
  rules.flapping = {23, seconds{24}, seconds{25}, 26};
  return rules;
}

void add_to(Settings& s) {
  s.variables = {"A=1", "B="};
  s.arguments = {"--config", "x.yaml"};
  s.privileges = {.uid = 1,
                  .gid = 2,
                  .groups = std::vector<std::uint32_t>{3, 4},
                  .user_name = "www",
                  .user_home = "/srv",
                  .umask = 5,
                  .root = "/jail",
                  .no_new_privs = true,
                  .capabilities = 6,
                  .oom_score_adj = -7,
                  .io_priority = 8,
                  .cpu_sets = {"0", "1-3"},
                  .master_uid = 9,
                  .master_gid = 10,
                  .master_groups = {11},
                  .master_capabilities = 12};
  s.worker_binds = {"127.0.0.1:9293+index"};
  s.pending_config = true;
  s.configured = pool::Config{.number = 7};
  s.configured_verbosity = 2;
  s.agent = "127.0.0.1:9100";
  s.agent_arguments = {"--statsd", "x"};
  s.capture = true;
  s.capture_file = "/var/log/out";
  s.cgroup_per_worker = false;
  s.cgroup_memory = 1 << 20;
  s.cgroup_cpu = 150;
  s.cgroup_pids = 99;
  s.cgroup_places = {"memory 1 /sys/fs/cgroup/memory/shop"};
  s.resource_limits = {{7, 1024, 4096}};
  s.probe = "http://{addr}/health";
  s.probe_address = "127.0.0.1:{9100+index}";
  s.probe_command = "./well";
  s.hooks = {{}, {"a", "b c"}, {}, {"/bin/sh", "-c", "d"}};
  s.hook_timeout = seconds{5};
  s.hook_upgrade_timeout = seconds{6};
}

void add_to(pool::Worker& w) {
  w.hook = pool::Hook::kBeforeStop;
  w.last_request_id = "\"r1\"";
  w.requests = 1234;
  w.busy = {{"\"r1\"", at(5)}, {"2", at(6)}};
  w.ailment = pool::Ailment::kSlow;
  w.complaint = "busy";
  w.ailing_since = at(7);
  w.condemned = true;
  w.examining = true;
  w.recycling = true;
}

}  // namespace

Snapshot whole_snapshot() {
  Snapshot snapshot = full_snapshot();
  add_to(snapshot.settings);
  pool::Config& c = snapshot.config;
  c.workers_min = 2;
  c.workers_max = 16;
  c.scale_up_after = seconds{3};
  c.scale_down_after = seconds{44};
  c.hook_before_start = true;
  c.hook_before_stop = true;
  c.health = whole_health();
  for (auto& [index, listener] : snapshot.listeners) {
    listener.since = Version{4};
    listener.until = Version{9};
    listener.tentative = true;
  }
  for (auto& [epoch, record] : snapshot.workers) {
    add_to(record.worker);
  }
  snapshot.connections[21] = {21, 22, 23, 24, "in", "out", {"j1"}, 25};
  snapshot.troubles[Slot{5}] = {Slot{5}, {at(1), at(2)}, at(3), at(4), 6, true};
  snapshot.hooks[71] = {71,
                        pool::Hook::kAfterExit,
                        {Slot{3}, Epoch{57}},
                        Version{31},
                        {"E=f"},
                        72,
                        at(73),
                        at(74),
                        true,
                        true};
  return snapshot;
}

}  // namespace testing

namespace {

using namespace testing;  // NOLINT: the values of above

using Fields = std::map<Tag, std::string>;

Fields fields_of(std::string_view record) {
  Fields fields;
  while (record.size() >= 6) {
    const auto tag = tagged::get_integer<Tag>(record);
    const auto length = tagged::get_integer<std::uint32_t>(record.substr(2));
    fields[tag] = record.substr(6, length);
    record.remove_prefix(6 + length);
  }
  return fields;
}

Fields fields_of_entry(const std::string& entry) {
  constexpr std::size_t kHeadBytes = 28;
  return fields_of(std::string_view(entry).substr(kHeadBytes));
}

// All are there, and none is what it is by default.
void expect_own(const Fields& whole, const Fields& usual, std::size_t count, const char* what) {
  EXPECT_EQ(whole.size(), count) << what;
  for (const auto& [tag, bytes] : whole) {
    const auto found = usual.find(tag);
    EXPECT_TRUE(found == usual.end() || found->second != bytes)
        << what << ", field " << tag << " is as by default";
  }
}

TEST(WholeSnapshot, NothingInItIsAsByDefault) {
  const Snapshot whole = whole_snapshot();
  const auto compare = [](const auto& one, const auto& usual, std::size_t count, const char* what) {
    expect_own(fields_of_entry(encode_entry(one)), fields_of_entry(encode_entry(usual)), count,
               what);
  };
  compare(whole.settings, Settings{}, 79, "settings");
  compare(whole.config, pool::Config{}, 23, "config");
  compare(whole.ledger, pool::Ledger{}, 17, "ledger");
  compare(whole.programs.begin()->second, Program{}, 8, "program");
  compare(whole.listeners.at(1), ListenerRecord{}, 16, "listener");
  compare(whole.workers.begin()->second, WorkerRecord{}, 6, "worker's record");
  compare(whole.connections.begin()->second, ConnectionRecord{}, 8, "connection");
  compare(whole.zygotes.begin()->second, ZygoteRecord{}, 6, "zygote");
  compare(whole.troubles.begin()->second, pool::SlotTrouble{}, 6, "slot");
  compare(whole.hooks.begin()->second, HookRecord{}, 11, "hook");
  constexpr Tag kWorker = 1;
  constexpr Tag kPrivileges = 182;
  constexpr Tag kHealth = 30;
  const auto inner = [](const std::string& entry, Tag tag) {
    return fields_of(fields_of_entry(entry)[tag]);
  };
  expect_own(inner(encode_entry(whole.workers.begin()->second), kWorker),
             inner(encode_entry(WorkerRecord{}), kWorker), 24, "worker");
  expect_own(inner(encode_entry(whole.settings), kPrivileges),
             inner(encode_entry(Settings{}), kPrivileges), 16, "privileges");
  expect_own(inner(encode_entry(whole.config), kHealth),
             inner(encode_entry(pool::Config{}), kHealth), 16, "health");
}

TEST(WholeSnapshot, GoesThereAndBack) {
  const Snapshot wanted = whole_snapshot();
  const Snapshot read = decode(encode_journal(wanted));
  expect_same(read, wanted);
  EXPECT_THAT(read.damage, ::testing::IsEmpty());
}

TEST(WholeSnapshot, AHookComesBackFieldByField) {
  const HookRecord hook = decode(encode_journal(whole_snapshot())).hooks.at(71);
  EXPECT_EQ(hook.number, 71U);
  EXPECT_EQ(hook.hook, pool::Hook::kAfterExit);
  EXPECT_EQ(hook.worker, (WorkerId{Slot{3}, Epoch{57}}));
  EXPECT_EQ(hook.version, Version{31});
  EXPECT_THAT(hook.variables, ::testing::ElementsAre("E=f"));
  EXPECT_EQ(hook.pid, 72);
  EXPECT_EQ(hook.started_at, at(73));
  EXPECT_EQ(hook.deadline, at(74));
  EXPECT_TRUE(hook.given_up);
  EXPECT_TRUE(hook.orphan);
  const Snapshot gone = decode(encode_journal(whole_snapshot()) + encode_hook_gone(71));
  EXPECT_TRUE(gone.hooks.empty());
}

TEST(WholeSnapshot, AHookThatDoesNotExistLosesItsRecordAlone) {
  HookRecord odd;
  odd.number = 5;
  odd.hook = static_cast<pool::Hook>(99);
  const Snapshot read = decode(encode_journal(whole_snapshot()) + encode_entry(odd));
  expect_same(read, whole_snapshot());
  EXPECT_THAT(read.damage, ::testing::ElementsAre("a hook's record makes no sense"));
}

}  // namespace
}  // namespace einhorn::wire
