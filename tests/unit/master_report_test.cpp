#include <chrono>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/report.h"
#include "wire/json.h"
#include "wire/ruby_state.h"
#include "wire/text.h"
#include "wire/yaml.h"
#include "wire_ruby.h"

namespace einhorn::master {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;
using wire::Value;

// The monotonic clock stands at 1000 s at 2026-11-22 03:29:20.794054719 UTC.
constexpr Instant kNow{seconds{1000}};
constexpr std::int64_t kWallNow = 1'795'318'160'794'054'719;

pool::Worker worker(std::uint32_t slot, std::uint64_t version, pool::WorkerState state) {
  pool::Worker made;
  made.id = {Slot{slot}, Epoch{slot + 10ULL}};
  made.version = Version{version};
  made.state = state;
  made.spawned_at = kNow - seconds{192};
  return made;
}

// Everything a report is made of, to be changed before it is asked for.
struct Scene {
  pool::Config config;
  pool::Ledger ledger;
  std::vector<pool::Worker> workers;
  wire::Settings settings;
  std::map<Version, wire::Program> programs;
  std::map<std::uint32_t, wire::ListenerRecord> listeners;
  Pid guard = 500;
  Pid master = 501;

  Scene() {
    settings.wall_offset = WallOffset{kWallNow - kNow.time_since_epoch().count()};
    ledger.next_epoch = 1000;
  }

  template <typename Report>
  std::string show(Report report) const {
    const pool::Pool pool(config, ledger, workers);
    const ReportInput input{
        .pool = pool,
        .settings = settings,
        .programs = programs,
        .listeners = listeners,
        .guard = guard,
        .master = master,
        .guard_resident = 1'258'291,
        .master_resident = 0,
        .now = kNow,
        .pid_of = [&pool](WorkerId id) -> Pid {
          return pool.find(id)->state == pool::WorkerState::kSpawning
                     ? 0
                     : 2000 - static_cast<Pid>(id.slot.value);
        },
        .resident_of = [](Pid pid) -> std::optional<std::uint64_t> {
          return pid == 2000 ? std::optional<std::uint64_t>(13'002'342) : std::nullopt;
        },
    };
    return report(input);
  }

  void add_listener(std::uint32_t index, const std::string& host, std::uint16_t port_given,
                    std::uint16_t port, std::uint32_t bind_index) {
    wire::ListenerRecord listener;
    listener.index = index;
    listener.text = host + ':' + std::to_string(port_given);
    listener.host = host;
    listener.port_given = port_given;
    listener.address = host + ':' + std::to_string(port);
    listener.port = port;
    listener.bind_index = bind_index;
    listeners[index] = listener;
  }
};

// A pool with something of everything.
Scene busy() {
  Scene scene;
  scene.config.number = 3;
  scene.config.seconds = seconds{1};
  scene.config.max_unacked = 2;
  scene.config.ack_mode = pool::AckMode::kTimer;
  scene.config.ack_delay = milliseconds{1500};
  scene.config.signal_timeout = seconds{5};
  scene.ledger.version = Version{2};
  scene.ledger.newest = Version{2};
  scene.ledger.proved = Version{1};
  scene.ledger.deaths = 3;
  scene.ledger.deaths_before_ack = 1;
  scene.ledger.last_spinup = kNow - seconds{192};
  scene.ledger.last_upgraded = kNow - seconds{200};
  scene.ledger.failure = "2 new workers ended: exited with status 1";
  pool::UpgradeProgress upgrade;
  upgrade.from = Version{1};
  upgrade.to = Version{2};
  upgrade.failures = 1;
  upgrade.reports = {"worker 7 was killed by signal 9 (KILL)"};
  scene.ledger.upgrade = upgrade;

  scene.workers.push_back(worker(0, 1, pool::WorkerState::kStopping));
  scene.workers.back().acked_at = kNow - seconds{190};
  scene.workers.back().signaled.add(SIGUSR2);
  scene.workers.back().last_signaled_at = kNow - seconds{1};
  scene.workers.push_back(worker(1, 2, pool::WorkerState::kReady));
  scene.workers.back().acked_at = kNow - seconds{100};
  scene.workers.back().pinged_at = kNow - seconds{4};
  scene.workers.back().pinged_request_id = R"({"n": [1, "a"]})";
  scene.workers.back().status_text = "warming up";
  scene.workers.push_back(worker(2, 2, pool::WorkerState::kStarting));
  scene.workers.push_back(worker(3, 2, pool::WorkerState::kSpawning));

  scene.settings.name = "shop";
  scene.settings.script = "/usr/bin/einhorn";
  scene.settings.original_command = {"./server", "--fd", "{fd}"};
  scene.settings.max_unacked_given = 2;
  scene.settings.socket_path = "/tmp/einhorn-shop.sock";
  scene.settings.pidfile = "/run/shop.pid";
  scene.settings.pidfile_given = "/run/shop.pid";
  scene.settings.nice_master = -5;
  scene.settings.drop_environment = {"n"};
  scene.settings.generation = 2;
  scene.settings.started_at = kNow - std::chrono::hours{3} - std::chrono::minutes{5};
  scene.programs[Version{2}] = {
      Version{2}, "/srv/shop", "/srv/shop/server", {"./server", "--fd", "{fd}"}, {"SECRET=geheim"}};
  scene.add_listener(0, "127.0.0.1", 0, 40001, 0);
  scene.listeners[0].flags = {"r", "n"};
  scene.listeners[0].name = "web";
  scene.add_listener(1, "localhost", 80, 80, 1);
  scene.add_listener(2, "localhost", 80, 80, 1);
  scene.add_listener(3, "127.0.0.1", 81, 81, 2);
  scene.listeners[3].from_argument = true;
  return scene;
}

// --- state --------------------------------------------------------------------------------------

TEST(MasterReport, StateOfABusyPoolByteByByte) {
  const std::string expected = R"(---
:state:
  :children:
    2000:
      :type: :worker
      :version: 1
      :acked: true
      :signaled: !ruby/object:Set
        hash:
          USR2: true
      :last_signaled_at: 2026-11-22 03:29:19.794054719 +00:00
      :index: 0
      :spinup_time: 2026-11-22 03:26:08.794054719 +00:00
    1999:
      :type: :worker
      :version: 2
      :acked: true
      :signaled: !ruby/object:Set
        hash: {}
      :last_signaled_at:
      :index: 1
      :spinup_time: 2026-11-22 03:26:08.794054719 +00:00
      :pinged_at: 2026-11-22 03:29:16.794054719 +00:00
      :pinged_request_id:
        "n":
        - 1
        - a
    1998:
      :type: :worker
      :version: 2
      :acked: false
      :signaled: !ruby/object:Set
        hash: {}
      :last_signaled_at:
      :index: 2
      :spinup_time: 2026-11-22 03:26:08.794054719 +00:00
  :config:
    :number: 3
    :backlog: 100
    :seconds: 1.0
    :max_unacked: 2
  :versions: {}
  :version: 2
  :sockets: {}
  :orig_cmd:
  - "./server"
  - "--fd"
  - "{fd}"
  :bind:
  - - 127.0.0.1
    - 0
    - - r
      - "n"
  - - localhost
    - 80
    - []
  :bind_fds:
  - 3
  - 4
  - 5
  :bound_ports:
  - 40001
  - 80
  - 80
  :cmd:
  - "/srv/shop/server"
  - "--fd"
  - "{fd}"
  :script_name: "/usr/bin/einhorn"
  :respawn: true
  :upgrading: true
  :smooth_upgrade: true
  :reloading_for_upgrade: false
  :path:
  :cmd_name: shop
  :verbosity: 1
  :generation: 2
  :last_spinup: 2026-11-22 03:26:08.794054719 +00:00
  :ack_mode:
    :type: :timer
    :timeout: 1.5
  :kill_children_on_exit: false
  :command_socket_as_fd: false
  :socket_path:
  :pidfile: "/run/shop.pid"
  :lockfile:
  :consecutive_deaths_before_ack: 1
  :last_upgraded: 2026-11-22 03:26:00.794054719 +00:00
  :nice:
    :master: -5
    :worker:
    :renice_cmd: "/usr/bin/renice"
  :reexec_commandline:
  :drop_environment_variables:
  - "n"
  :signal_timeout: 5
  :preloaded: false
  :guard: 500
  :master: 501
  :failed: false
  :failure: '2 new workers ended: exited with status 1'
)";
  const std::string shown = busy().show(state_yaml);
  EXPECT_EQ(shown, expected);
  // Ruby reads it, and writes the same.
  const std::vector<std::string> again =
      wire::test_support::ask_ruby("YAML.dump(YAML.safe_load(x, **permitted))", {shown});
  EXPECT_EQ(again.front(), shown);
}

Value state_of(const Scene& scene) {
  Result<Value> document = wire::parse_yaml(scene.show(state_yaml), wire::ruby_state_limits());
  EXPECT_TRUE(document.has_value());
  const Value* state = document ? document->find("state") : nullptr;
  return state != nullptr ? *state : Value();
}

Value at(const Value& parent, std::string_view key) {
  const Value* value = parent.find(key);
  return value != nullptr ? *value : Value("(not there)");
}

TEST(MasterReport, StateOfAFreshPoolHasUpstreamsDefaults) {
  Scene scene;
  scene.guard = 0;
  const Value state = state_of(scene);
  EXPECT_EQ(at(state, "children"), Value(wire::Map{}));
  EXPECT_EQ(at(state, "config").inspect(), "{:number=>1, :backlog=>100, :seconds=>1}");
  EXPECT_EQ(at(state, "ack_mode").inspect(), "{:type=>:timer, :timeout=>1}");
  EXPECT_EQ(at(state, "upgrading"), Value(false));
  EXPECT_EQ(at(state, "smooth_upgrade"), Value(false));
  EXPECT_EQ(at(state, "last_spinup"), Value());
  EXPECT_EQ(at(state, "cmd_name"), Value());
  EXPECT_EQ(at(state, "signal_timeout"), Value());
  EXPECT_EQ(at(state, "guard"), Value());
  EXPECT_EQ(at(state, "failure"), Value());
}

TEST(MasterReport, StateShowsWhatWasGiven) {
  Scene scene;
  scene.config.ack_mode = pool::AckMode::kManual;
  scene.config.seconds = milliseconds{100};
  scene.config.max_upgrade_additional = 2;
  scene.config.signal_timeout = milliseconds{2500};
  scene.settings.gc_before_fork = true;
  scene.settings.reexec_commandline = {"bundle", "exec"};
  scene.ledger.failed = true;
  Value state = state_of(scene);
  EXPECT_EQ(at(state, "config").inspect(),
            "{:number=>1, :backlog=>100, :seconds=>0.1, :max_upgrade_additional=>2, "
            ":gc_before_fork=>true}");
  EXPECT_EQ(at(state, "ack_mode").inspect(), "{:type=>:manual}");
  EXPECT_EQ(at(state, "signal_timeout"), Value(2.5));
  EXPECT_EQ(at(state, "reexec_commandline").inspect(), R"(["bundle", "exec"])");
  EXPECT_EQ(at(state, "failed"), Value(true));

  scene.config.ack_mode = pool::AckMode::kNotify;
  EXPECT_EQ(at(state_of(scene), "ack_mode").inspect(), "{:type=>:notify}");
  scene.config.ack_mode = pool::AckMode::kTimer;
  scene.config.ack_delay = seconds{2};
  EXPECT_EQ(at(state_of(scene), "ack_mode").inspect(), "{:type=>:timer, :timeout=>2.0}");
}

TEST(MasterReport, RequestIdsOfEveryKind) {
  const std::vector<std::pair<std::string, Value>> table = {
      {"", Value()},
      {"null", Value()},
      {"7", Value(7)},
      {R"("7")", Value("7")},
      {"1.5", Value(1.5)},
      {"[true]", Value(wire::List{true})},
      {"{oops", Value("{oops")},  // never lost
  };
  for (const auto& [text, value] : table) {
    pool::Worker pinged = worker(0, 0, pool::WorkerState::kReady);
    pinged.pinged_at = kNow;
    pinged.pinged_request_id = text;
    EXPECT_EQ(ping_request_id(pinged), value) << text;
    Scene scene;
    scene.workers = {pinged};
    const Value child = at(state_of(scene), "children").as_map()->front().second;
    EXPECT_EQ(at(child, "pinged_request_id"), value) << text;
  }
}

// --- state json ---------------------------------------------------------------------------------

TEST(MasterReport, JsonOfABusyPool) {
  const std::string shown = busy().show(state_json);
  EXPECT_EQ(shown.find('\n'), std::string::npos);
  EXPECT_THAT(shown, Not(HasSubstr("geheim"))) << "an environment is nobody's business";
  Result<Value> document = wire::parse_json(shown);
  ASSERT_TRUE(document.has_value()) << shown;
  const std::string expected = R"json({"einhorn": ")json" EINHORN_VERSION
                               R"json(", "name": "shop", "guard": 500, "master": 501,
      "number": 3, "workers_min": null, "workers_max": null, "ready": 1, "version": 2, "newest_version": 2, "upgrading": true,
      "upgrade": {"from": 1, "to": 2, "smooth": true, "going_back": false, "proved": false,
                  "failures": 1, "reports": ["worker 7 was killed by signal 9 (KILL)"]},
      "failed": false, "failure": "2 new workers ended: exited with status 1", "respawn": true,
      "deaths_before_ack": 1, "deaths": 3, "generation": 2, "ack_mode": "timer",
      "stop_signal": "USR2", "socket_path": "/tmp/einhorn-shop.sock", "pidfile": "/run/shop.pid",
      "started_at": "2026-11-22T00:24:20.794054719Z",
      "sockets": [
        {"index": 0, "address": "127.0.0.1:40001", "fd": 3, "name": "web", "bind": "127.0.0.1:0",
         "queue": null, "queue_limit": null},
        {"index": 1, "address": "localhost:80", "fd": 4, "name": null, "bind": "localhost:80",
         "queue": null, "queue_limit": null},
        {"index": 2, "address": "localhost:80", "fd": 5, "name": null, "bind": "localhost:80",
         "queue": null, "queue_limit": null},
        {"index": 3, "address": "127.0.0.1:81", "fd": 6, "name": null, "bind": "127.0.0.1:81",
         "queue": null, "queue_limit": null}],
      "versions": [{"version": 2, "directory": "/srv/shop", "program": "/srv/shop/server",
                    "arguments": ["./server", "--fd", "{fd}"]}],
      "workers": [
        {"pid": 2000, "index": 0, "epoch": 10, "version": 1, "state": "stopping", "acked": true,
         "signaled": ["USR2"], "started_at": "2026-11-22T03:26:08.794054719Z",
         "acked_at": "2026-11-22T03:26:10.794054719Z",
         "last_signaled_at": "2026-11-22T03:29:19.794054719Z", "pinged_at": null,
         "pinged_request_id": null, "status": null, "rss": 13002342, "requests": 0, "busy": [], "ailment": null,
         "complaint": null, "recycling": false, "hook": null},
        {"pid": 1999, "index": 1, "epoch": 11, "version": 2, "state": "ready", "acked": true,
         "signaled": [], "started_at": "2026-11-22T03:26:08.794054719Z",
         "acked_at": "2026-11-22T03:27:40.794054719Z", "last_signaled_at": null,
         "pinged_at": "2026-11-22T03:29:16.794054719Z", "pinged_request_id": {"n": [1, "a"]},
         "status": "warming up", "rss": null, "requests": 0, "busy": [], "ailment": null,
         "complaint": null, "recycling": false, "hook": null},
        {"pid": 1998, "index": 2, "epoch": 12, "version": 2, "state": "starting", "acked": false,
         "signaled": [], "started_at": "2026-11-22T03:26:08.794054719Z", "acked_at": null,
         "last_signaled_at": null, "pinged_at": null, "pinged_request_id": null, "status": null,
         "rss": null, "requests": 0, "busy": [], "ailment": null,
         "complaint": null, "recycling": false, "hook": null},
        {"pid": null, "index": 3, "epoch": 13, "version": 2, "state": "spawning", "acked": false,
         "signaled": [], "started_at": "2026-11-22T03:26:08.794054719Z", "acked_at": null,
         "last_signaled_at": null, "pinged_at": null, "pinged_request_id": null, "status": null,
         "rss": null, "requests": 0, "busy": [], "ailment": null,
         "complaint": null, "recycling": false, "hook": null}],
      "memory": {"guard": 1258291, "master": null}, "hung": [], "paused": []})json";
  Result<Value> wanted = wire::parse_json(expected);
  ASSERT_TRUE(wanted.has_value());
  EXPECT_EQ(document->inspect(), wanted->inspect());
}

TEST(MasterReport, JsonOfAFreshPool) {
  Scene scene;
  scene.guard = 0;
  scene.config.ack_mode = pool::AckMode::kNotify;
  Result<Value> document = wire::parse_json(scene.show(state_json));
  ASSERT_TRUE(document.has_value());
  EXPECT_EQ(at(*document, "name"), Value());
  EXPECT_EQ(at(*document, "guard"), Value());
  EXPECT_EQ(at(*document, "upgrade"), Value());
  EXPECT_EQ(at(*document, "started_at"), Value());
  EXPECT_EQ(at(*document, "ack_mode"), Value("notify"));
  EXPECT_EQ(at(*document, "workers"), Value(wire::List{}));
}

// --- status -------------------------------------------------------------------------------------

TEST(MasterReport, StatusOfABusyPool) {
  EXPECT_EQ(
      busy().show(status_text),
      "einhorn " EINHORN_VERSION
      "  shop  guard 500 (1.2M)  master 501  up 3h05m\n"
      "workers 1/3 ready, version 1, upgrading to 2: 1/3, 3 restarts (1 before ACK in a row)\n"
      "last failure: 2 new workers ended: exited with status 1\n"
      "failed new workers: 1\n"
      "  worker 7 was killed by signal 9 (KILL)\n"
      "socket 127.0.0.1:40001  fd 3  web\n"
      "socket localhost:80  fd 4\n"
      "socket localhost:80  fd 5\n"
      "socket 127.0.0.1:81  fd 6\n"
      "\n"
      " PID  INDEX  VERSION  STATE            AGE  MEMORY  LAST PING  STATUS\n"
      "2000      0        1  stopping USR2  3m12s   12.4M          -\n"
      "1999      1        2  ready          3m12s       -     4s ago  warming up\n"
      "1998      2        2  starting       3m12s       -          -\n"
      "   -      3        2  spawning       3m12s       -          -\n");
}

TEST(MasterReport, StatusOfAPoolInTrouble) {
  Scene scene;
  scene.guard = 0;
  scene.ledger.respawn = false;
  scene.ledger.failed = true;
  const std::string shown = scene.show(status_text);
  EXPECT_THAT(shown, HasSubstr("  no guard  master 501\n"));
  EXPECT_THAT(shown, HasSubstr("workers 0/1 ready, version 0, 0 restarts\n"));
  EXPECT_THAT(shown, HasSubstr("going down: "));
  EXPECT_THAT(shown, HasSubstr("FAILED: "));
  EXPECT_THAT(shown, HasSubstr("\nno workers\n"));
}

TEST(MasterReport, StatusOfAPoolThatGoesBack) {
  Scene scene = busy();
  scene.ledger.upgrade->from = Version{2};
  scene.ledger.upgrade->to = Version{1};
  scene.ledger.upgrade->going_back = true;
  scene.ledger.version = Version{1};
  EXPECT_THAT(scene.show(status_text), HasSubstr("version 2, going back to 1: 0/3"));
}

TEST(MasterReport, StatusStaysOneScreen) {
  for (const std::size_t count : {60U, 61U, 1000U}) {
    Scene scene;
    scene.config.number = static_cast<std::uint32_t>(count);
    for (std::uint32_t slot = 0; slot < count; ++slot) {
      scene.workers.push_back(worker(slot, 0, pool::WorkerState::kReady));
      scene.workers.back().acked_at = kNow;
      scene.workers.back().status_text = "\xc3\xa4\x1b[2J\n" + std::string(250, 'x');
    }
    scene.ledger.failure = std::string(300, 'f') + "\r\nnew line";
    for (std::uint32_t index = 0; index < 40; ++index) {
      scene.add_listener(index, "127.0.0.1", 0, 1, index);
    }
    const std::string shown = scene.show(status_text);
    EXPECT_EQ(shown.find_first_of("\x1b\r"), std::string::npos);
    EXPECT_THAT(shown, HasSubstr("\n... and 30 more sockets\n"));
    std::istringstream lines(shown);
    std::size_t rows = 0;
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(wire::text::count_characters(line), 100U) << line;
      rows += line.find("  ready  ") != std::string::npos ? 1U : 0U;
    }
    EXPECT_EQ(rows, count > 60 ? 50U : 60U);
    const std::string more = "... and " + std::to_string(count - 50) + " more\n";
    EXPECT_EQ(shown.find(more) != std::string::npos, count > 60);
  }
}

TEST(MasterReport, AgesAndSizes) {
  const std::vector<std::pair<Duration, std::string>> ages = {
      {seconds{-5}, "0s"},
      {milliseconds{999}, "0s"},
      {seconds{59}, "59s"},
      {seconds{60}, "1m00s"},
      {seconds{3599}, "59m59s"},
      {seconds{3600}, "1h00m"},
      {std::chrono::hours{23} + std::chrono::minutes{59}, "23h59m"},
      {std::chrono::hours{24}, "1d00h"},
      {std::chrono::hours{100}, "4d04h"},
  };
  for (const auto& [age, text] : ages) {
    Scene scene;
    scene.settings.started_at = kNow - age;
    EXPECT_THAT(scene.show(status_text), HasSubstr("  up " + text + "\n"));
  }
  const std::vector<std::pair<std::uint64_t, std::string>> sizes = {
      {512, "0.5K"},         {1024, "1.0K"},          {1'048'575, "1.0M"},
      {13'002'342, "12.4M"}, {5'368'709'120, "5.0G"}, {UINT64_MAX, "16.0E"},
  };
  for (const auto& [bytes, text] : sizes) {
    const Scene scene;
    const std::uint64_t size = bytes;
    const std::string shown = scene.show([size](ReportInput input) {
      input.master_resident = size;
      return status_text(input);
    });
    EXPECT_THAT(shown, HasSubstr("master 501 (" + text + ")\n"));
  }
}

}  // namespace
}  // namespace einhorn::master
