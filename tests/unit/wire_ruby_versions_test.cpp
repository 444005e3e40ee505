// What every version of Ruby's Einhorn hands over, as far back as there may be one running: what it
// says is understood, what it does not know is defaulted, what only it knows is kept aside, and all
// of that is listed. The documents are in tests/data.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data_folder.h"
#include "wire/ruby_state.h"
#include "wire/yaml.h"

namespace einhorn::wire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAreArray;

struct Release {
  std::string version;
  std::vector<std::string> missing;
  std::vector<std::string> unknown;
  bool has_limits;  // max_unacked and max_upgrade_additional
  double seconds;   // between two starts
  double ack_timeout;
  std::vector<std::int64_t> indexes;
};

void PrintTo(const Release& release, std::ostream* out) { *out << release.version; }

std::vector<std::string> of_each_child(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const char* pid : {"4101", "4102", "4103"}) {
    for (const std::string& name : names) {
      all.push_back("children." + std::string(pid) + "." + name);
    }
  }
  return all;
}

std::vector<std::string> operator+(std::vector<std::string> all,
                                   const std::vector<std::string>& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

const std::vector<Release>& releases() {
  static const std::vector<std::string> kSince08 = {"bound_ports", "preloaded"};
  static const std::vector<Release> kAll = {
      {"0.5",
       of_each_child({"last_signaled_at", "index", "spinup_time"}) + kSince08 +
           std::vector<std::string>{"smooth_upgrade", "reloading_for_upgrade", "reexec_commandline",
                                    "drop_environment_variables", "signal_timeout"},
       {"reloading_for_preload_upgrade"},
       false,
       2,
       1,
       {0, 0, 0}},
      {"0.6",
       of_each_child({"last_signaled_at", "spinup_time"}) + kSince08 +
           std::vector<std::string>{"signal_timeout"},
       {"reloading_for_preload_upgrade"},
       false,
       2,
       1,
       {0, 1, 2}},
      {"0.7",
       of_each_child({"last_signaled_at", "spinup_time"}) + kSince08,
       {"reloading_for_preload_upgrade"},
       false,
       2,
       2.5,
       {0, 1, 2}},
      {"0.8", {}, {}, true, 0.5, 2.5, {0, 1, 2}},
      {"1.0", {}, {}, true, 0.5, 2.5, {0, 1, 2}},
      {"1.1", {}, {}, true, 0.5, 2.5, {0, 1, 2}},
  };
  return kAll;
}

class RubyVersions : public ::testing::TestWithParam<Release> {
 protected:
  void SetUp() override {
    const std::filesystem::path path =
        unit::data_folder() / ("ruby-state-" + GetParam().version + ".yml");
    std::ifstream file(path, std::ios::binary);
    ASSERT_TRUE(file.good()) << path;
    text_.assign(std::istreambuf_iterator<char>(file), {});
    Result<Value> document = parse_yaml(text_, ruby_state_limits());
    ASSERT_TRUE(document.has_value()) << document.error().message();
    Result<RubyHandoffRead> read = decode_ruby_handoff(*document);
    ASSERT_TRUE(read.has_value()) << read.error().message();
    read_ = std::move(*read);
  }

  [[nodiscard]] const RubyState& state() const { return read_.handoff.state; }

  std::string text_;
  RubyHandoffRead read_;
};

TEST_P(RubyVersions, WhatItDoesNotSayIsListed) {
  EXPECT_THAT(read_.findings.missing, UnorderedElementsAreArray(GetParam().missing));
  EXPECT_THAT(read_.findings.invalid, IsEmpty());
}

TEST_P(RubyVersions, WhatOnlyItKnowsIsListedAndKeptAside) {
  EXPECT_THAT(read_.findings.unknown, UnorderedElementsAreArray(GetParam().unknown));
  ASSERT_THAT(read_.unknown, SizeIs(GetParam().unknown.size()));
  for (const auto& [key, value] : read_.unknown) {
    ASSERT_NE(key.as_symbol(), nullptr);
    EXPECT_EQ(key.as_symbol()->name, "reloading_for_preload_upgrade");
    ASSERT_NE(value.as_bool(), nullptr);
    EXPECT_TRUE(*value.as_bool());
  }
}

TEST_P(RubyVersions, ItsChildrenAreUnderstood) {
  const std::vector<RubyChild>& children = state().children;
  ASSERT_THAT(children, SizeIs(4));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(children[i].pid, 4101 + static_cast<Pid>(i));
    EXPECT_EQ(children[i].type, RubyChild::Type::kWorker);
    EXPECT_EQ(children[i].version, i == 1 ? 1 : 2);
    EXPECT_EQ(children[i].acked, i != 2);
    EXPECT_EQ(children[i].index, GetParam().indexes[i]);
  }
  EXPECT_THAT(children[0].signaled, IsEmpty());
  EXPECT_THAT(children[1].signaled, ElementsAre("USR2"));
  EXPECT_EQ(children[3].pid, 4110);
  EXPECT_EQ(children[3].type, RubyChild::Type::kStatePasser);
}

TEST_P(RubyVersions, ItsSettingsAreUnderstood) {
  EXPECT_EQ(state().config.number, 2);
  EXPECT_EQ(state().config.seconds, GetParam().seconds);
  EXPECT_EQ(state().config.max_unacked.has_value(), GetParam().has_limits);
  EXPECT_EQ(state().config.max_upgrade_additional.value_or(-1), GetParam().has_limits ? 3 : -1);
  EXPECT_EQ(state().version, 2);
  EXPECT_EQ(state().generation, 3);
  EXPECT_TRUE(state().upgrading);
  EXPECT_EQ(state().ack_mode.type, "timer");
  EXPECT_EQ(state().ack_mode.timeout, GetParam().ack_timeout);
  EXPECT_THAT(state().orig_cmd, ::testing::Optional(ElementsAre("server", "--fast", "8")));
  EXPECT_THAT(state().cmd, ::testing::Optional(ElementsAre("/srv/bin/server", "--fast", "8")));
  EXPECT_EQ(state().cmd_name, "shop");
  EXPECT_EQ(state().socket_path, "/run/shop.sock");
  EXPECT_EQ(state().nice.worker, 5);
  EXPECT_TRUE(state().kill_children_on_exit);
  EXPECT_TRUE(state().command_socket_as_fd);
  EXPECT_TRUE(state().last_spinup.has_value());
}

TEST_P(RubyVersions, ItsSocketsAreUnderstood) {
  EXPECT_THAT(state().bind_fds, ElementsAre(6, 7));
  ASSERT_THAT(state().bind, SizeIs(2));
  EXPECT_EQ(state().bind[0].host, "127.0.0.1");
  EXPECT_EQ(state().bind[0].port, 0);
  EXPECT_THAT(state().bind[0].flags, ElementsAre("r", "n"));
  EXPECT_EQ(state().bind[1].port, 8080);
  if (std::find(GetParam().missing.begin(), GetParam().missing.end(), "bound_ports") ==
      GetParam().missing.end()) {
    EXPECT_THAT(state().bound_ports, ElementsAre(41873, 8080));
  } else {
    EXPECT_THAT(state().bound_ports, IsEmpty());
  }
}

TEST_P(RubyVersions, ItsDescriptorsAreUnderstood) {
  const RubyHandoff& handoff = read_.handoff;
  ASSERT_THAT(handoff.servers, SizeIs(1));
  EXPECT_EQ(handoff.servers[0].server, 5);
  ASSERT_THAT(handoff.connections, SizeIs(1));
  EXPECT_EQ(handoff.connections[0].socket, 9);
  EXPECT_EQ(handoff.connections[0].read_buffer, "{command: st");
  ASSERT_THAT(handoff.connections[0].subscriptions, SizeIs(1));
  EXPECT_EQ(handoff.connections[0].subscriptions[0].tag, "upgrade");
  EXPECT_EQ(*handoff.connections[0].subscriptions[0].request_id.as_integer(), 7);
  ASSERT_THAT(handoff.ack_timers, SizeIs(1));
  EXPECT_EQ(handoff.ack_timers[0].pid, 4103);
  EXPECT_EQ(handoff.ack_timers[0].time, GetParam().ack_timeout);
  EXPECT_EQ(handoff.ack_timers[0].start, state().last_spinup);
}

TEST_P(RubyVersions, WhatWeWriteOfItNeedsNoDefaults) {
  const Result<Value> again =
      parse_yaml(encode_yaml(encode_ruby_handoff(read_.handoff)), ruby_state_limits());
  ASSERT_TRUE(again.has_value()) << again.error().message();
  const Result<RubyHandoffRead> read = decode_ruby_handoff(*again);
  ASSERT_TRUE(read.has_value()) << read.error().message();
  EXPECT_THAT(read->findings.missing, IsEmpty());
  EXPECT_THAT(read->findings.unknown, IsEmpty());
  EXPECT_THAT(read->findings.invalid, IsEmpty());
  EXPECT_EQ(read->handoff.state.children.size(), state().children.size());
}

INSTANTIATE_TEST_SUITE_P(Every, RubyVersions, ::testing::ValuesIn(releases()),
                         [](const auto& about) {
                           std::string name = about.param.version;
                           name.replace(name.find('.'), 1, "_");
                           return "Of" + name;
                         });

}  // namespace
}  // namespace einhorn::wire
