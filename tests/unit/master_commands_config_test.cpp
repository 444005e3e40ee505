// The keys that `config` takes, each with what is right and what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "master/commands.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

wire::Value value(const std::string& yaml) {
  Result<wire::Value> parsed = wire::parse_yaml(yaml);
  EXPECT_TRUE(parsed.has_value()) << yaml;
  return parsed ? std::move(*parsed) : wire::Value{};
}

pool::Config merged(const std::string& key, const std::string& yaml) {
  pool::Config config;
  const Status status = merge_config(config, key, value(yaml));
  EXPECT_TRUE(status.has_value()) << (status ? "" : status.error().message());
  return config;
}

std::string refusal(const std::string& key, const std::string& yaml) {
  pool::Config config;
  const Status status = merge_config(config, key, value(yaml));
  EXPECT_FALSE(status.has_value()) << key << ": " << yaml << " was taken";
  return status ? "" : status.error().message();
}

TEST(MergeConfig, TakesEveryKnownKey) {
  EXPECT_EQ(merged("number", "7").number, 7u);
  EXPECT_EQ(merged("seconds", "0.5").seconds, milliseconds{500});
  EXPECT_EQ(merged("max_unacked", "4").max_unacked, 4u);
  EXPECT_TRUE(merged("max_unacked", "4").max_unacked_given);
  EXPECT_EQ(merged("max_upgrade_additional", "0").max_upgrade_additional, 0u);
  EXPECT_EQ(merged("signal_timeout", "3").signal_timeout, seconds{3});
  EXPECT_EQ(merged("drain_timeout", "4.25").drain_timeout, milliseconds{4250});
  EXPECT_EQ(merged("upgrade_timeout", "60").upgrade_timeout, seconds{60});
  EXPECT_EQ(merged("ack_timeout", "0").ack_timeout, Duration::zero());
  EXPECT_EQ(merged("canary_seconds", "2").canary_seconds, seconds{2});
  EXPECT_EQ(merged("give_up", "9").give_up, 9u);
  EXPECT_EQ(merged("canary", "0").canary, 0u);
  EXPECT_EQ(merged("upgrade_failures", "0").upgrade_failures, 0u);
  EXPECT_EQ(merged("stop_signal", "TERM").stop_signal, SIGTERM);
  EXPECT_EQ(merged("stop_signal", "SIGQUIT").stop_signal, SIGQUIT);
}

TEST(MergeConfig, NothingTakesBackWhatIsOptional) {
  pool::Config config;
  config.seconds = seconds{1};
  config.signal_timeout = config.drain_timeout = config.upgrade_timeout = seconds{2};
  config.max_upgrade_additional = 3;
  for (const char* key : {"seconds", "signal_timeout", "drain_timeout", "upgrade_timeout",
                          "max_upgrade_additional"}) {
    EXPECT_TRUE(merge_config(config, key, value("~")).has_value()) << key;
  }
  EXPECT_EQ(config.seconds, std::nullopt);
  EXPECT_EQ(config.signal_timeout, std::nullopt);
  EXPECT_EQ(config.drain_timeout, std::nullopt);
  EXPECT_EQ(config.upgrade_timeout, std::nullopt);
  EXPECT_EQ(config.max_upgrade_additional, std::nullopt);
}

TEST(MergeConfig, RefusesWhatMakesNoSenseAndSaysWhatDoes) {
  EXPECT_THAT(refusal("number", "0"), HasSubstr("must be an integer from 1 to "));
  EXPECT_THAT(refusal("number", "abc"), HasSubstr("Invalid value for config key 'number'"));
  refusal("number", "-1");
  refusal("number", "1.5");
  refusal("number", "~");
  refusal("number", std::to_string(limits::kMaxWorkers));
  refusal("number", "99999999999");
  refusal("seconds", "0");
  refusal("seconds", "-1");
  refusal("seconds", ".nan");
  refusal("seconds", ".inf");
  refusal("seconds", "soon");
  refusal("signal_timeout", "[1]");
  refusal("ack_timeout", "~");
  refusal("ack_timeout", "-0.5");
  refusal("max_unacked", "0");
  refusal("give_up", "true");
  EXPECT_THAT(refusal("stop_signal", "USR9"), HasSubstr("the name of a signal"));
  refusal("stop_signal", "12");
}

TEST(MergeConfig, AnUnknownKeyIsAnsweredWithThoseThereAre) {
  const std::string message = refusal("nubmer", "3");
  EXPECT_THAT(message, HasSubstr("Unknown config key 'nubmer'"));
  for (const char* key : {"number", "seconds", "max_unacked", "signal_timeout", "verbosity"}) {
    EXPECT_THAT(message, HasSubstr(key));
  }
}

TEST(MergeConfig, ARefusedKeyChangesNothing) {
  for (const char* key : {"number", "seconds", "signal_timeout", "ack_timeout", "give_up",
                          "stop_signal", "canary_seconds"}) {
    pool::Config config;
    EXPECT_FALSE(merge_config(config, key, value("[]")).has_value()) << key;
    const pool::Config untouched;
    EXPECT_EQ(config.number, untouched.number);
    EXPECT_EQ(config.seconds, untouched.seconds);
    EXPECT_EQ(config.signal_timeout, untouched.signal_timeout);
    EXPECT_EQ(config.ack_timeout, untouched.ack_timeout);
    EXPECT_EQ(config.give_up, untouched.give_up);
    EXPECT_EQ(config.stop_signal, untouched.stop_signal);
    EXPECT_EQ(config.canary_seconds, untouched.canary_seconds);
  }
}

}  // namespace
}  // namespace einhorn::master
