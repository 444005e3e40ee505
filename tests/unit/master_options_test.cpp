#include <chrono>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/option_table.h"
#include "master/options.h"
#include "master/shell_words.h"
#include "master_options_right.h"
#include "master_options_wrong.h"

namespace einhorn::master {
namespace {

using namespace testing;  // NOLINT: the tables
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Options parse(const Words& words) {
  Result<Options> options = parse_options(words);
  EXPECT_TRUE(options.has_value())
      << ::testing::PrintToString(words) << ": " << (options ? "" : options.error().message());
  return options ? *options : Options{};
}

std::string refusal(const Words& words) {
  Result<Options> options = parse_options(words);
  return options ? "accepted" : options.error().message();
}

// --- right uses ---------------------------------------------------------------------------------

TEST(MasterOptions, EveryOptionDoesWhatItSays) {
  for (const RightUse& use : right_uses()) {
    Words words = use.words;
    words.insert(words.end(), {"server", "-n", "9"});
    const Options options = parse(words);
    EXPECT_TRUE(use.holds(options)) << ::testing::PrintToString(words);
    const bool goes_on = options.mode == Mode::kRun || options.mode == Mode::kCheckConfig ||
                         options.mode == Mode::kPrintConfig || options.mode == Mode::kMaster ||
                         options.mode == Mode::kWatch || options.mode == Mode::kRead ||
                         options.mode == Mode::kProbe;
    EXPECT_EQ(options.command, goes_on ? Words({"server", "-n", "9"}) : Words());
    EXPECT_EQ(options.settings.original_command, options.command);
  }
}

// --- wrong uses ---------------------------------------------------------------------------------

TEST(MasterOptions, EveryWrongUseIsNamed) {
  for (const WrongUse& use : wrong_uses()) {
    EXPECT_EQ(refusal(use.words), use.message) << ::testing::PrintToString(use.words);
  }
}

TEST(MasterOptions, TheTablesOfThisTestAreComplete) {
  std::multiset<std::string> right;
  std::multiset<std::string> wrong;
  for (const RightUse& use : right_uses()) {
    right.insert(use.option);
  }
  for (const WrongUse& use : wrong_uses()) {
    wrong.insert(use.option);
  }
  for (const OptionRule& rule : option_table()) {
    EXPECT_GE(right.count(rule.name), 1U) << rule.name;
    EXPECT_GE(wrong.count(rule.name), 2U) << rule.name;
  }
}

TEST(MasterOptions, UnknownAndAmbiguousOnes) {
  const std::vector<std::pair<Words, std::string>> table = {
      {{"--no-such-option", "x"}, R"(unknown option "--no-such-option")"},
      {{"--numbr=3", "x"}, R"(unknown option "--numbr" (did you mean --number?))"},
      {{"-Z"}, R"(unknown option "-Z")"},
      {{"-kZ"}, R"(unknown option "-Z")"},
      {{"-N", "3"}, R"(unknown option "-N" (did you mean -n?))"},
      {{"-1"}, R"(unknown option "-1")"},
      {{"-="}, R"(unknown option "-=")"},
      {{"--max-u", "3"},
       R"(ambiguous option "--max-u": it may be --max-unacked, --max-upgrade-additional)"},
      {{"--=3"}, R"(unknown option "--")"},
      {{"-k", "-n", "2", "--x\ny"}, R"(unknown option "--x\ny")"},
  };
  for (const auto& [words, message] : table) {
    EXPECT_EQ(refusal(words), message) << ::testing::PrintToString(words);
  }
}

// --- the rest -----------------------------------------------------------------------------------

TEST(MasterOptions, DefaultsAreUpstreams) {
  const Options options = parse({"sleep", "5"});
  EXPECT_EQ(options.mode, Mode::kRun);
  EXPECT_THAT(options.command, ElementsAre("sleep", "5"));
  EXPECT_EQ(options.config.number, 1U);
  EXPECT_EQ(options.config.ack_mode, pool::AckMode::kTimer);
  EXPECT_EQ(options.config.ack_delay, seconds{1});
  EXPECT_EQ(options.config.ack_timeout, seconds{300});
  EXPECT_EQ(options.config.seconds, std::nullopt);
  EXPECT_EQ(options.config.max_unacked, 0U);
  EXPECT_EQ(options.settings.max_unacked_given, std::nullopt);
  EXPECT_EQ(options.config.stop_signal, SIGUSR2);
  EXPECT_EQ(options.settings.backlog, 100);
  EXPECT_EQ(options.settings.verbosity, 1);
  EXPECT_EQ(options.settings.socket_mode, 0600U);
  EXPECT_EQ(options.settings.renice_command, "/usr/bin/renice");
  EXPECT_EQ(options.settings.socket_path + options.settings.socket_path_given, "");
}

TEST(MasterOptions, WhereTheyEnd) {
  EXPECT_THAT(parse({"-n", "2", "a", "-n", "3"}).command, ElementsAre("a", "-n", "3"));
  EXPECT_THAT(parse({"-n", "2", "--", "-n", "3"}).command, ElementsAre("-n", "3"));
  EXPECT_THAT(parse({"a", "--", "b"}).command, ElementsAre("a", "--", "b"));
  EXPECT_THAT(parse({"-", "b"}).command, ElementsAre("-", "b"));
  EXPECT_THAT(parse({"a", ""}).command, ElementsAre("a", ""));
}

TEST(MasterOptions, ModesActInTheirOrder) {
  EXPECT_EQ(parse({}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-n", "3"}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-k", "--"}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-h", "--version"}).mode, Mode::kHelp);
  EXPECT_EQ(parse({"--version", "-h", "--nonsense"}).mode, Mode::kVersion);
  EXPECT_EQ(parse({"--upgrade-check", "--", "x"}).mode, Mode::kUpgradeCheck);
  EXPECT_EQ(refusal({"--nonsense", "--version"}), R"(unknown option "--nonsense")");
  EXPECT_EQ(parse({"--with-state-fd", "3"}).mode, Mode::kMaster);
  EXPECT_THAT(parse({"--with-state-fd", "3", "--", "x"}).command, ElementsAre("x"));
}

TEST(MasterOptions, OneCallDoesNotTouchTheNext) {
  EXPECT_EQ(refusal({"-kZ"}), R"(unknown option "-Z")");
  const Options options = parse({"-n", "4", "x"});
  EXPECT_EQ(options.config.number, 4U);
  EXPECT_FALSE(options.settings.kill_children_on_exit);
  EXPECT_THAT(options.command, ElementsAre("x"));
}

TEST(MasterOptions, TooManyAddresses) {
  Words words;
  for (int i = 0; i < 257; ++i) {
    words.insert(words.end(), {"-b", "0"});
  }
  EXPECT_EQ(refusal(words), "-b/--bind: more than 256 addresses");
}

TEST(MasterUsage, HasUpstreamsShape) {
  const std::string brief = usage(false);
  const std::string full = usage(true);
  EXPECT_EQ(brief.rfind("## Usage\n", 0), 0U);
  EXPECT_THAT(brief, HasSubstr("Run `einhorn -h`"));
  EXPECT_THAT(brief, HasSubstr("    einhorn [options] program\n"));
  EXPECT_THAT(brief, HasSubstr("\n### Options\n\n    -b, --bind ADDR                  Open a"));
  EXPECT_THAT(brief, HasSubstr("\n        --version                    Show the version\n"));
  EXPECT_THAT(brief,
              HasSubstr("\n        --nice MASTER[:WORKER[:RENICE_CMD]]\n" + std::string(37, ' ')));
  for (const char* section :
       {"## Overview", "### Server sockets", "### Command socket", "### Upgrades", "### ACKs",
        "### The environment of a worker", "### Names in ps", "### Options"}) {
    EXPECT_THAT(full, HasSubstr(std::string("\n") + section + "\n\n"));
  }
  std::istringstream lines(full);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100U) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
  }
  for (const OptionRule& rule : option_table()) {
    EXPECT_THAT(brief, HasSubstr(std::string(" --") + rule.name));
  }
}

TEST(MasterShellWords, SplitsAsAShellDoes) {
  const std::vector<std::pair<std::string, Words>> table = {
      {"", {}},
      {"  a\tb \n c ", {"a", "b", "c"}},
      {"a'b c'd", {"ab cd"}},
      {R"("a \" b" '\n')", {"a \" b", "\\n"}},
      {R"("\a\$\\")", {R"(\a$\)"}},
      {R"(a\ b \'c)", {"a b", "'c"}},
      {"'' \"\"", {"", ""}},
  };
  for (const auto& [line, words] : table) {
    Result<Words> split = split_shell_words(line);
    ASSERT_TRUE(split.has_value()) << line;
    EXPECT_EQ(*split, words) << line;
  }
  EXPECT_EQ(split_shell_words("a 'b").error().message(), "has an unbalanced '");
  EXPECT_EQ(split_shell_words("a \"b\\\"").error().message(), "has an unbalanced \"");
  EXPECT_EQ(split_shell_words("a\\").error().message(), "ends in a backslash");
}

}  // namespace
}  // namespace einhorn::master
