#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shell/words.h"

namespace einhorn::shell {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Words = std::vector<std::string>;

Words words_of(std::string_view line) {
  Result<Words> words = split_words(line);
  EXPECT_TRUE(words.has_value()) << line;
  return words ? *words : Words{"(error)"};
}

TEST(SplitWords, TakesWordsBetweenBlanks) {
  EXPECT_THAT(words_of(""), IsEmpty());
  EXPECT_THAT(words_of(" \t\r\n\v\f"), IsEmpty());
  EXPECT_THAT(words_of("state"), ElementsAre("state"));
  EXPECT_THAT(words_of("  signal\tUSR1   HUP "), ElementsAre("signal", "USR1", "HUP"));
}

TEST(SplitWords, QuotesAsAShellDoes) {
  struct Case {
    std::string line;
    Words words;
  };
  const std::vector<Case> cases = {
      {"'a b'", {"a b"}},
      {"\"a b\"", {"a b"}},
      {"a' b 'c", {"a b c"}},
      {"'a'\"b\"c\\d", {"abcd"}},
      {"''", {""}},
      {"a '' \"\" b", {"a", "", "", "b"}},
      {"a''", {"a"}},
      {"'a\\b'", {"a\\b"}},
      {"'\"'", {"\""}},
      {"\"'\"", {"'"}},
      {"\"a\\\"b\"", {"a\"b"}},
      {"\"\\$\\`\\\\\"", {"$`\\"}},
      {"\"\\a\\n\"", {"\\a\\n"}},
      {"\"a\\\nb\"", {"a\nb"}},
      {"a\\ b", {"a b"}},
      {"\\'\\\"\\\\", {"'\"\\"}},
      {"a\\", {"a\\"}},
      {"\\", {"\\"}},
      {"$HOME `x` *", {"$HOME", "`x`", "*"}},
      {"gr\xc3\xbc\xc3\x9f"
       "e #1",
       {"gr\xc3\xbc\xc3\x9f"
        "e",
        "#1"}},
  };
  for (const Case& example : cases) {
    EXPECT_EQ(words_of(example.line), example.words) << example.line;
  }
}

TEST(SplitWords, RefusesAnOpenQuoteInOneLine) {
  for (const std::string line : {"'", "\"", "a 'b", "a \"b\\\"", "a\n'b", "'a''"}) {
    const Result<Words> words = split_words(line);
    ASSERT_FALSE(words.has_value()) << line;
    EXPECT_THAT(words.error().message(), HasSubstr("unmatched quote"));
    EXPECT_EQ(words.error().message().find('\n'), std::string::npos) << line;
  }
}

TEST(SplitWords, RefusesNul) {
  const Result<Words> words = split_words(std::string_view("a\0b", 3));
  ASSERT_FALSE(words.has_value());
  EXPECT_THAT(words.error().message(), HasSubstr("NUL"));
}

TEST(ParseSequence, SplitsAtEverySemicolonAndLeavesEmptyCommandsOut) {
  const Result<std::vector<CommandLine>> commands = parse_sequence(" inc;; signal USR1 'a b' ; ;");
  ASSERT_TRUE(commands.has_value());
  EXPECT_THAT(*commands,
              ElementsAre(CommandLine{"inc", {}}, CommandLine{"signal", {"USR1", "a b"}}));
}

TEST(ParseSequence, OfNothingIsEmpty) {
  for (const std::string text : {"", ";", " ; ;\n"}) {
    const Result<std::vector<CommandLine>> commands = parse_sequence(text);
    ASSERT_TRUE(commands.has_value()) << text;
    EXPECT_THAT(*commands, IsEmpty()) << text;
  }
}

TEST(ParseSequence, SplitsBeforeItLooksAtQuotes) {
  EXPECT_FALSE(parse_sequence("config 'a;b'").has_value());
  EXPECT_FALSE(parse_sequence("inc; signal \"USR1").has_value());
}

}  // namespace
}  // namespace einhorn::shell
