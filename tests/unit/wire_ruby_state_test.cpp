// The state and the hand-off document, held against what a Ruby master wrote.
#include <algorithm>
#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/ruby_state.h"
#include "wire/yaml.h"
#include "wire_ruby.h"

namespace einhorn::wire {
namespace {

using test_support::ask_ruby;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

// Recorded from Einhorn 1.1.1 while a client waited for its upgrade.
constexpr std::string_view kRecorded = R"(---
:state:
  :children:
    22041:
      :type: :worker
      :version: 0
      :acked: false
      :signaled: !ruby/object:Set
        hash: {}
      :last_signaled_at:
      :index: 0
      :spinup_time: 2026-11-22 05:07:03.031496307 +00:00
    22042:
      :type: :worker
      :version: 0
      :acked: false
      :signaled: !ruby/object:Set
        hash:
          USR2: true
      :last_signaled_at: 2026-11-22 05:07:04.000000001 +00:00
      :index: 1
      :spinup_time: &1 2026-11-22 05:07:03.032343855 +00:00
    22048:
      :type: :state_passer
  :config:
    :number: 2
    :backlog: 100
    :seconds: 1
    :max_unacked: 3
  :versions: {}
  :version: 0
  :sockets: {}
  :orig_cmd:
  - sleep
  - '20'
  :bind:
  - - 127.0.0.1
    - 0
    - - r
      - "n"
  :bind_fds:
  - 7
  :bound_ports:
  - 38861
  :cmd:
  - "/usr/bin/sleep"
  - '20'
  :script_name:
  :respawn: true
  :upgrading: false
  :smooth_upgrade: true
  :reloading_for_upgrade: true
  :path:
  :cmd_name: web
  :verbosity: 1
  :generation: 1
  :last_spinup: *1
  :ack_mode:
    :type: :timer
    :timeout: 30.0
  :kill_children_on_exit: false
  :command_socket_as_fd: false
  :socket_path: "/run/e.sock"
  :pidfile:
  :lockfile:
  :consecutive_deaths_before_ack: 0
  :last_upgraded:
  :nice:
    :master:
    :worker:
    :renice_cmd: "/usr/bin/renice"
  :reexec_commandline:
  - "/opt/einhorn"
  :drop_environment_variables:
  - FOO
  :signal_timeout: 10
  :preloaded: false
:persistent_descriptors:
- :class: Einhorn::Event::CommandServer
  :server: 8
- :class: Einhorn::Event::Connection
  :socket: 9
  :subscriptions:
    :upgrade: up-1
- :class: Einhorn::Event::ACKTimer
  :time: 30.0
  :start: 2026-11-22 05:07:03.031578405 +00:00
  :pid: 22041
)";

// The member under that name, or words that say there is none.
Value member(const Value& value, std::string_view key) {
  const Value* found = value.find(key);
  return found != nullptr ? *found : Value("not there");
}

Value document(std::string_view text) {
  Result<Value> value = parse_yaml(text, ruby_state_limits());
  EXPECT_TRUE(value.has_value()) << (value ? "" : value.error().message());
  return value ? *value : Value();
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

// Ruby reads and writes the document; ours must come out unchanged.
void expect_ruby_agrees(const Value& value) {
  const std::string text = encode_yaml(value);
  EXPECT_EQ(ask_ruby("YAML.dump(YAML.safe_load(x, **permitted))", {text}).front(), text);
}

void expect_nothing_found(const RubyFindings& findings) {
  EXPECT_THAT(findings.missing, IsEmpty());
  EXPECT_THAT(findings.unknown, IsEmpty());
  EXPECT_THAT(findings.invalid, IsEmpty());
}

RubyHandoff full_handoff() {
  RubyHandoff handoff;
  RubyState& state = handoff.state;
  const WallTime time{1'795'318'160'794'054'719};
  RubyChild child;
  child.pid = 6395;
  child.version = 3;
  child.acked = true;
  child.signaled = {"USR2", "KILL"};
  child.last_signaled_at = time;
  child.index = 4;
  child.spinup_time = time;
  child.pinged_at = time;
  child.pinged_request_id = Value("req-1");
  state.children.push_back(child);
  child.pid = 6396;
  child.pinged_request_id = Value();
  state.children.push_back(child);
  state.config = {200, 511, 0.5, 3, 5, true};
  state.version = 7;
  state.orig_cmd = {"ruby", "x y"};
  state.bind = {{"127.0.0.1", 80, {"r", "n"}}, {"[::]", 0, {}}};
  state.bind_fds = {7, 8};
  state.bound_ports = {80, 4711};
  state.cmd = {"/usr/bin/ruby", "\xff"};
  state.script_name = "app";
  state.respawn = false;
  state.upgrading = state.smooth_upgrade = state.reloading_for_upgrade = true;
  state.path = "/srv/app.rb";
  state.cmd_name = "web";
  state.verbosity = 0;
  state.generation = 2;
  state.last_spinup = state.last_upgraded = time;
  state.ack_mode = {"manual", std::nullopt};
  state.kill_children_on_exit = state.command_socket_as_fd = true;
  state.socket_path = "/run/e.sock";
  state.pidfile = "/run/e.pid";
  state.lockfile = "/run/e.lock";
  state.consecutive_deaths_before_ack = 9;
  state.nice = {-5, 10, "renice"};
  state.reexec_commandline = {{"bundle", "exec", "einhorn"}};
  state.drop_environment_variables = {"A", "B"};
  state.signal_timeout = 30;
  state.preloaded = true;
  handoff.servers = {{8}};
  handoff.connections = {{9, "{comma", "", {{"upgrade", 1}, {"reload", "x"}}},
                         {10, "", "---%0A\xff\n", {}}};
  handoff.ack_timers = {{1, time, 6395}, {2.5, std::nullopt, 6396}};
  return handoff;
}

TEST(RubyStateTest, ARecordedHandOffIsUnderstood) {
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(kRecorded));
  ASSERT_TRUE(read.has_value());
  expect_nothing_found(read->findings);
  const RubyState& state = read->handoff.state;
  ASSERT_EQ(state.children.size(), 3U);
  EXPECT_EQ(state.children[0].pid, 22041);
  EXPECT_EQ(state.children[0].type, RubyChild::Type::kWorker);
  EXPECT_THAT(state.children[0].signaled, IsEmpty());
  EXPECT_EQ(state.children[1].index, 1);
  EXPECT_THAT(state.children[1].signaled, ElementsAre("USR2"));
  EXPECT_EQ(state.children[1].spinup_time, state.last_spinup);
  EXPECT_FALSE(state.children[1].pinged_at.has_value());
  EXPECT_EQ(state.children[2].type, RubyChild::Type::kStatePasser);
  EXPECT_EQ(state.config.number, 2);
  EXPECT_EQ(state.config.max_unacked, 3);
  EXPECT_FALSE(state.config.gc_before_fork.has_value());
  EXPECT_EQ(state.orig_cmd, (std::vector<std::string>{"sleep", "20"}));
  ASSERT_EQ(state.bind.size(), 1U);
  EXPECT_EQ(state.bind[0].host, "127.0.0.1");
  EXPECT_THAT(state.bind[0].flags, ElementsAre("r", "n"));
  EXPECT_THAT(state.bind_fds, ElementsAre(7));
  EXPECT_THAT(state.bound_ports, ElementsAre(38861));
  EXPECT_TRUE(state.reloading_for_upgrade);
  EXPECT_FALSE(state.script_name.has_value());
  EXPECT_EQ(state.cmd_name, "web");
  EXPECT_EQ(state.ack_mode.type, "timer");
  EXPECT_EQ(state.ack_mode.timeout, 30.0);
  EXPECT_EQ(state.signal_timeout, 10.0);
  ASSERT_EQ(read->handoff.servers.size(), 1U);
  EXPECT_EQ(read->handoff.servers[0].server, 8);
  ASSERT_EQ(read->handoff.connections.size(), 1U);
  EXPECT_EQ(read->handoff.connections[0].socket, 9);
  EXPECT_EQ(read->handoff.connections[0].subscriptions.at(0).tag, "upgrade");
  EXPECT_EQ(read->handoff.connections[0].subscriptions.at(0).request_id, Value("up-1"));
  ASSERT_EQ(read->handoff.ack_timers.size(), 1U);
  EXPECT_EQ(read->handoff.ack_timers[0].pid, 22041);
  EXPECT_EQ(read->handoff.ack_timers[0].time, 30.0);
}

TEST(RubyStateTest, ARecordedHandOffIsWrittenBackByteByByte) {
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(kRecorded));
  ASSERT_TRUE(read.has_value());
  std::string without_aliases = replaced(std::string(kRecorded), "&1 ", "");
  without_aliases = replaced(without_aliases, "*1", "2026-11-22 05:07:03.032343855 +00:00");
  EXPECT_EQ(encode_yaml(encode_ruby_handoff(read->handoff)), without_aliases);
}

TEST(RubyStateTest, TheStateCommandShowsTheStateAlone) {
  const Result<RubyStateRead> read = decode_ruby_state(document(kRecorded));
  ASSERT_TRUE(read.has_value());
  expect_nothing_found(read->findings);
  const Value shown = encode_ruby_state(read->state);
  EXPECT_EQ(shown, Value(Map{{Symbol{"state"}, member(shown, "state")}}));
  expect_ruby_agrees(shown);
}

TEST(RubyStateTest, EverythingComesBackAndRubyAgrees) {
  const Value written = encode_ruby_handoff(full_handoff());
  expect_ruby_agrees(written);
  expect_ruby_agrees(encode_ruby_handoff({}));
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(encode_yaml(written)));
  ASSERT_TRUE(read.has_value());
  expect_nothing_found(read->findings);
  EXPECT_EQ(encode_ruby_handoff(read->handoff), written);
  EXPECT_EQ(read->handoff.state.children.at(1).pinged_request_id, Value());
  EXPECT_EQ(read->handoff.connections.at(0).read_buffer, "{comma");
  EXPECT_EQ(read->handoff.connections.at(1).write_buffer, "---%0A\xff\n");
  EXPECT_EQ(read->handoff.state.cmd->at(1), "\xff");
}

TEST(RubyStateTest, TheDefaultsAreRubys) {
  // What Einhorn::State.default_state is in Ruby, as YAML.dump writes it.
  const std::string ruby =
      ask_ruby(
          "YAML.dump({state: {children: {}, config: {number: 1, backlog: 100, seconds: 1}, "
          "versions: {},"
          " version: 0, sockets: {}, orig_cmd: nil, bind: [], bind_fds: [], bound_ports: [], cmd: "
          "nil,"
          " script_name: nil, respawn: true, upgrading: false, smooth_upgrade: false,"
          " reloading_for_upgrade: false, path: nil, cmd_name: nil, verbosity: 1, generation: 0,"
          " last_spinup: nil, ack_mode: {type: :timer, timeout: 1}, kill_children_on_exit: false,"
          " command_socket_as_fd: false, socket_path: nil, pidfile: nil, lockfile: nil,"
          " consecutive_deaths_before_ack: 0, last_upgraded: nil, nice: {master: nil, worker: nil,"
          " renice_cmd: '/usr/bin/renice'}, reexec_commandline: nil, drop_environment_variables: "
          "[],"
          " signal_timeout: nil, preloaded: false}})",
          {""})
          .front();
  EXPECT_EQ(encode_yaml(encode_ruby_state({})), ruby);
}

TEST(RubyStateTest, KeysOfOurOwnStandBehindRubys) {
  RubyState state;
  put(state.extra, Symbol{"guard_pid"}, 4711);
  const Value shown = encode_ruby_state(state);
  const Value inner = member(shown, "state");
  ASSERT_NE(inner.as_map(), nullptr);
  EXPECT_EQ(inner.as_map()->back(), Member(Symbol{"guard_pid"}, 4711));
  const Result<RubyStateRead> read = decode_ruby_state(shown);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(Value(read->unknown), Value(Map{{Symbol{"guard_pid"}, 4711}}));
  EXPECT_THAT(read->state.extra, IsEmpty());
  EXPECT_THAT(read->findings.unknown, ElementsAre("guard_pid"));
}

TEST(RubyStateTest, AnUnknownKeyWithoutANameIsListedAsRubyShowsIt) {
  const Result<RubyStateRead> read = decode_ruby_state(document(":state:\n  :\"\": 1\n  '': 2\n"));
  ASSERT_TRUE(read.has_value());
  EXPECT_THAT(read->findings.unknown, ElementsAre(":\"\"", "\"\""));
}

TEST(RubyStateTest, MissingKeysTakeTheirDefaults) {
  const Result<RubyStateRead> read = decode_ruby_state(
      document(":state:\n  :children:\n    7: {}\n    8:\n      :type: :state_passer\n"));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->state.config.number, 1);
  EXPECT_EQ(read->state.ack_mode.type, "timer");
  EXPECT_TRUE(read->state.respawn);
  EXPECT_EQ(read->state.children.size(), 2U);
  EXPECT_THAT(read->findings.missing, Contains("config"));
  EXPECT_THAT(read->findings.missing, Contains("preloaded"));
  EXPECT_THAT(read->findings.missing, Contains("children.7.spinup_time"));
  EXPECT_THAT(read->findings.missing, Not(Contains("children.8.version")));
  EXPECT_THAT(read->findings.missing, Not(Contains("children.7.pinged_at")));
  EXPECT_THAT(read->findings.invalid, IsEmpty());
}

TEST(RubyStateTest, UnknownKeysAreListedAtEveryLevel) {
  std::string text = replaced(std::string(kRecorded), ":max_unacked: 3", ":new_one: 3");
  text = replaced(text, "    :renice_cmd:", "    :colour: blue\n    :renice_cmd:");
  text = replaced(text, "  :pid: 22041", "  :pid: 22041\n  :shape: 1");
  text = replaced(text, "Einhorn::Event::Connection", "Einhorn::Event::Carrier");
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(text));
  ASSERT_TRUE(read.has_value());
  EXPECT_THAT(read->findings.unknown,
              ElementsAre("config.new_one", "nice.colour", "persistent_descriptors.1",
                          "persistent_descriptors.2.shape"));
  ASSERT_EQ(read->unknown_descriptors.size(), 1U);
  EXPECT_EQ(member(read->unknown_descriptors[0], "socket"), Value(9));
  EXPECT_THAT(read->handoff.connections, IsEmpty());
  EXPECT_EQ(read->handoff.state.nice.renice_cmd, "/usr/bin/renice");
}

TEST(RubyStateTest, DamageStaysWhereItIs) {
  std::string text(kRecorded);
  text = replaced(text, "22041:\n      :type: :worker", "22041:\n      :type: :gardener");
  text = replaced(text, ":index: 1", ":index: first");
  text = replaced(text, ":version: 0\n  :sockets", ":version: new\n  :sockets");
  text = replaced(text, "- - 127.0.0.1", "- - - 127.0.0.1");
  text = replaced(text, "22048:", "nobody:");
  text = replaced(text, ":server: 8", ":server: eight");
  text = replaced(text, ":timeout: 30.0", ":timeout: .nan");
  text = replaced(text, ":pid: 22041", ":pid: -1");
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(text));
  ASSERT_TRUE(read.has_value());
  const RubyState& state = read->handoff.state;
  ASSERT_EQ(state.children.size(), 1U);
  EXPECT_EQ(state.children[0].pid, 22042);
  EXPECT_EQ(state.children[0].index, 0);
  EXPECT_THAT(state.children[0].signaled, ElementsAre("USR2"));
  EXPECT_EQ(state.version, 0);
  EXPECT_THAT(state.bind, IsEmpty());
  EXPECT_EQ(state.ack_mode.timeout, 1.0);
  EXPECT_EQ(state.cmd_name, "web");
  EXPECT_THAT(read->handoff.servers, IsEmpty());
  EXPECT_THAT(read->handoff.ack_timers, IsEmpty());
  EXPECT_EQ(read->handoff.connections.size(), 1U);
  for (const char* place :
       {"children.22041", "children.22042.index", "children.nobody", "version", "bind",
        "ack_mode.timeout", "persistent_descriptors.0", "persistent_descriptors.2"}) {
    EXPECT_THAT(read->findings.invalid, Contains(place));
  }
}

TEST(RubyStateTest, WhatIsNoStateIsAnError) {
  for (const char* text : {"", "1", "[]", "{}", ":state: 1", ":state: []", ":other: {}"}) {
    EXPECT_FALSE(decode_ruby_state(document(text)).has_value()) << text;
    EXPECT_FALSE(decode_ruby_handoff(document(text)).has_value()) << text;
  }
  const Result<RubyHandoffRead> bare = decode_ruby_handoff(document(":state: {}"));
  ASSERT_TRUE(bare.has_value());
  EXPECT_THAT(bare->findings.missing, Contains("persistent_descriptors"));
}

TEST(RubyStateTest, AnyKindOfValueAnywhereIsSurvived) {
  // Every scalar of the recorded document in turn becomes something else.
  const std::string recorded(kRecorded);
  for (std::size_t at = recorded.find(": "); at != std::string::npos;
       at = recorded.find(": ", at + 1)) {
    const std::size_t end = recorded.find('\n', at);
    for (const char* other : {"x", "-1", "[]", "{}", "1.5", ":y", "[{}]", "99999999999"}) {
      const std::string text = recorded.substr(0, at + 2) + other + recorded.substr(end);
      const Result<Value> value = parse_yaml(text, ruby_state_limits());
      if (value) {
        const Result<RubyHandoffRead> read = decode_ruby_handoff(*value);
        if (read) {
          EXPECT_TRUE(decode_ruby_handoff(encode_ruby_handoff(read->handoff)).has_value());
        }
      }
    }
  }
}

TEST(RubyStateTest, LargePoolsFitTheLimits) {
  RubyHandoff handoff = full_handoff();
  const RubyChild child = handoff.state.children.front();
  handoff.state.children.clear();
  for (Pid pid = 1; pid <= 2000; ++pid) {
    handoff.state.children.push_back(child);
    handoff.state.children.back().pid = pid;
    handoff.ack_timers.push_back({1, child.spinup_time, pid});
  }
  const std::string text = encode_yaml(encode_ruby_handoff(handoff));
  const Result<RubyHandoffRead> read = decode_ruby_handoff(document(text));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->handoff.state.children.size(), 2000U);
}

}  // namespace
}  // namespace einhorn::wire
