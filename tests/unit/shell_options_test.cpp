#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shell/options.h"

namespace einhorn::shell {
namespace {

using testing::HasSubstr;

ShellOptions parsed(const std::vector<std::string>& arguments) {
  Result<ShellOptions> options = parse_options(arguments);
  EXPECT_TRUE(options.has_value()) << (options ? "" : options.error().message());
  return options ? *options : ShellOptions();
}

std::string refused(const std::vector<std::string>& arguments) {
  const Result<ShellOptions> options = parse_options(arguments);
  EXPECT_FALSE(options.has_value());
  std::string message = options ? "" : options.error().message();
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

TEST(ParseOptions, WithoutArgumentsNothingIsSet) {
  const ShellOptions options = parsed({});
  EXPECT_EQ(options.mode, Mode::kRun);
  EXPECT_FALSE(options.socket_path || options.command_name || options.commands || options.timeout);
  EXPECT_FALSE(options.json);
}

TEST(ParseOptions, TakesShortLongAndShortenedForms) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"-d", "/p", "-c", "web", "-e", "a; b"},
           {"-d/p", "-cweb", "-ea; b"},
           {"--socket-path", "/p", "--command-name", "web", "--execute", "a; b"},
           {"--socket-path=/p", "--command-name=web", "--execute=a; b"},
           {"--sock=/p", "--comm", "web", "--ex", "a; b"}}) {
    const ShellOptions options = parsed(arguments);
    EXPECT_EQ(options.socket_path, "/p");
    EXPECT_EQ(options.command_name, "web");
    EXPECT_EQ(options.commands, "a; b");
  }
}

TEST(ParseOptions, TakesTheNameInAnyPlace) {
  EXPECT_EQ(parsed({"web"}).command_name, "web");
  const ShellOptions options = parsed({"web", "-e", "state"});
  EXPECT_EQ(options.command_name, "web");
  EXPECT_EQ(options.commands, "state");
  EXPECT_EQ(parsed({"--", "-web"}).command_name, "-web");
  EXPECT_EQ(parsed({"-c", "web", "web"}).command_name, "web");
  EXPECT_EQ(parsed({"-c", "a", "-c", "b"}).command_name, "b");
}

TEST(ParseOptions, TwoNamesAreWrongUsage) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"a", "b"}, {"-c", "a", "b"}, {"a", "a"}, {"a", "-c", "b"}}) {
    const ShellOptions options = parsed(arguments);
    EXPECT_EQ(options.mode, Mode::kUsage);
    EXPECT_THAT(options.complaint, HasSubstr("more than one name: \""));
  }
}

TEST(ParseOptions, HelpAndVersionEndTheParsing) {
  EXPECT_EQ(parsed({"-h", "--nonsense"}).mode, Mode::kUsage);
  EXPECT_EQ(parsed({"--help"}).complaint, "");
  EXPECT_EQ(parsed({"--version"}).mode, Mode::kVersion);
}

TEST(ParseOptions, TakesJsonAndTimeout) {
  const ShellOptions options = parsed({"--json", "--timeout", "1.5"});
  EXPECT_TRUE(options.json);
  EXPECT_EQ(options.timeout, from_seconds(1.5));
  EXPECT_EQ(parsed({"--timeout=2"}).timeout, from_seconds(2));
}

TEST(ParseOptions, SaysWhichArgumentIsWrong) {
  EXPECT_EQ(refused({"-z"}), "-z: unknown option");
  EXPECT_EQ(refused({"-ze"}), "-z: unknown option");
  EXPECT_EQ(refused({"--bogus"}), "--bogus: unknown option");
  EXPECT_EQ(refused({"--bogus=1"}), "--bogus=1: unknown option");
  EXPECT_EQ(refused({"-e"}), "-e: a value is missing");
  EXPECT_EQ(refused({"--execute"}), "--execute: a value is missing");
  EXPECT_EQ(refused({"--json=yes"}), "--json=yes: this option takes no value");
  for (const std::string value : {"", "x", "0", "-1", "1s", "inf", "nan", "1e999", " 1"}) {
    EXPECT_THAT(refused({"--timeout", value}), HasSubstr("it takes seconds, more than 0")) << value;
  }
}

TEST(ParseOptions, CanBeUsedAgainAfterAnError) {
  EXPECT_EQ(refused({"-c", "x", "-z"}), "-z: unknown option");
  EXPECT_EQ(parsed({"-c", "y"}).command_name, "y");
}

TEST(UsageText, NamesEveryOption) {
  const std::string usage = usage_text();
  for (const char* option : {"-c, --command-name", "-d, --socket-path", "-e, --execute", "--json",
                             "--timeout", "-h, --help", "--version"}) {
    EXPECT_THAT(usage, HasSubstr(option));
  }
}

}  // namespace
}  // namespace einhorn::shell
