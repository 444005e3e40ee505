// Reading YAML within limits: what is refused, and that nothing hostile costs more than it may.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/yaml.h"

namespace einhorn::wire {
namespace {

using ::testing::HasSubstr;

// The member under that name, or words that say there is none.
Value member(const Value& value, std::string_view key) {
  const Value* found = value.find(key);
  return found != nullptr ? *found : Value("not there");
}

Value parsed(std::string_view text, const YamlLimits& limits = {}) {
  Result<Value> value = parse_yaml(text, limits);
  EXPECT_TRUE(value.has_value()) << (value ? "" : value.error().message());
  return value ? *value : Value("not parsed");
}

std::string refusal(std::string_view text, const YamlLimits& limits = {}) {
  const Result<Value> value = parse_yaml(text, limits);
  EXPECT_FALSE(value.has_value()) << (value ? value->inspect() : "");
  std::string message = value ? "" : value.error().message();
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

constexpr YamlLimits kWithAliases = {.aliases = true};

TEST(YamlTest, CollectionsKeepOrderAndRepeatedKeys) {
  EXPECT_EQ(parsed("{b: 1, a: [2, {c: 3}], b: 4}"),
            Value(Map{{"b", 1}, {"a", List{2, Map{{"c", 3}}}}, {"b", 4}}));
  EXPECT_EQ(member(parsed("{b: 1, b: 4}"), "b"), Value(4));
  EXPECT_EQ(member(parsed(":b: 1"), "b"), Value(1));
  EXPECT_EQ(member(parsed(":b: 1\nb: 2"), "b"), Value(2));
  EXPECT_EQ(parsed("{a: 1}").find("b"), nullptr);
  EXPECT_EQ(parsed("[a]").find("a"), nullptr);
}

TEST(YamlTest, EmptyTextsAreNull) {
  for (const char* text : {"", "\n", "   ", "# only a comment\n", "---\n", "--- "}) {
    EXPECT_EQ(parsed(text), Value()) << text;
  }
}

TEST(YamlTest, OnlyTheFirstDocumentIsRead) {
  EXPECT_EQ(parsed("--- 1\n--- 2\n"), Value(1));
  EXPECT_EQ(parsed("--- 1\n...\n[unclosed"), Value(1));
}

TEST(YamlTest, SetsInEverySpelling) {
  const Value set = Set{List{"a", 1}};
  EXPECT_EQ(parsed("!ruby/object:Set {hash: {a: true, 1: true}}"), set);
  EXPECT_EQ(parsed("!ruby/set {hash: {a: true, 1: true}}"), set);
  EXPECT_EQ(parsed("!ruby/set {a: true, 1: true}"), set);
  EXPECT_EQ(parsed("!!set {a, 1}"), set);
  EXPECT_EQ(parsed("!ruby/object:Set {hash: {}}"), Value(Set{}));
}

TEST(YamlTest, TimesAreResolvedInUtc) {
  EXPECT_EQ(parsed("2026-11-22 03:29:20.794054719 +00:00"),
            Value(WallTime{1'795'318'160'794'054'719}));
  EXPECT_EQ(parsed("2026-11-22 04:29:20.794054719 +01:00"),
            Value(WallTime{1'795'318'160'794'054'719}));
  EXPECT_EQ(parsed("1969-12-31 23:59:59.000000001 Z"), Value(WallTime{-999'999'999}));
  EXPECT_EQ(parsed("2026-11-22"), Value("2026-11-22"));
}

TEST(YamlTest, UnknownTagsAreRefused) {
  EXPECT_THAT(refusal("a: !ruby/object:Gem::Installer {i: x}"),
              HasSubstr("unknown tag \"!ruby/object:Gem::Installer\" at line 1, column 4"));
  for (const char* text :
       {"!ruby/object:OpenStruct {}", "!ruby/regexp /x/", "!ruby/class File", "!ruby/range 1..2",
        "!ruby/hash:Foo {}", "!ruby/struct:Foo {}", "!ruby/exception:Foo {}", "!!omap [a: 1]",
        "!!python/object:x 1", "!foo bar", "!ruby/object:Set [a]", "!!seq {a: 1}", "!!map [a]",
        "!ruby/object:Set x", "!<tag:x> y"}) {
    EXPECT_THAT(refusal(text), HasSubstr("unknown tag")) << text;
  }
}

TEST(YamlTest, AnchorsAndAliasesAreRefusedUnlessAllowed) {
  EXPECT_THAT(refusal("[&a 1, *a]"), HasSubstr("anchors are not allowed at line 1, column 2"));
  EXPECT_THAT(refusal("[*a]"), HasSubstr("aliases are not allowed"));
  EXPECT_EQ(parsed("[&a {x: 1}, *a, *a]", kWithAliases),
            Value(List{Map{{"x", 1}}, Map{{"x", 1}}, Map{{"x", 1}}}));
  EXPECT_EQ(parsed("{a: &1 2026-11-22 03:29:20 Z, b: *1}", kWithAliases),
            Value(Map{{"a", WallTime{1'795'318'160'000'000'000}},
                      {"b", WallTime{1'795'318'160'000'000'000}}}));
  EXPECT_EQ(parsed("[&a 1, &a 2, *a]", kWithAliases), Value(List{1, 2, 2}));
  EXPECT_THAT(refusal("[*a]", kWithAliases), HasSubstr("unknown alias"));
  EXPECT_THAT(refusal("&a [*a]", kWithAliases), HasSubstr("unknown alias"));
}

TEST(YamlTest, AliasBombsAreDefused) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" +
            repeated(before + ", ", 9) + before + "]\n";
  }
  EXPECT_THAT(refusal(bomb, kWithAliases), HasSubstr("aliases stand for too much"));
  // Few nodes, but long ones.
  const std::string heavy = "[&a " + std::string(60'000, 'x') + repeated(", *a", 2000) + "]";
  EXPECT_THAT(refusal(heavy, kWithAliases), HasSubstr("aliases stand for too much"));
  // Nesting by aliases: each wraps the one before in another list.
  std::string tower = "- &b0 []\n";
  for (int i = 1; i < 100; ++i) {
    tower += "- &b" + std::to_string(i) + " [*b" + std::to_string(i - 1) + "]\n";
  }
  EXPECT_THAT(refusal(tower, kWithAliases), HasSubstr("nested too deeply"));
}

TEST(YamlTest, NestingIsLimitedWhileParsing) {
  const int most = limits::kMaxNesting;
  EXPECT_EQ(parsed(repeated("[", 3) + repeated("]", 3)), Value(List{Value(List{Value(List{})})}));
  EXPECT_TRUE(parse_yaml(repeated("[", most) + repeated("]", most)).has_value());
  EXPECT_THAT(refusal(repeated("[", most + 1) + repeated("]", most + 1)),
              HasSubstr("nested too deeply"));
  EXPECT_TRUE(parse_yaml(repeated("{a: ", most) + repeated("}", most)).has_value());
  EXPECT_THAT(refusal(repeated("{a: ", most + 1) + repeated("}", most + 1)),
              HasSubstr("nested too deeply"));
  for (const char* opening : {"[", "{", "{a: ", "- ", "? ", "[{"}) {
    EXPECT_THAT(refusal(repeated(opening, 100'000)), HasSubstr("at line 1")) << opening;
  }
  EXPECT_THAT(refusal("[[1]]", {.nesting = 1}), HasSubstr("nested too deeply"));
}

TEST(YamlTest, NodesAreLimited) {
  const std::size_t most = limits::kMaxDocumentNodes;
  EXPECT_TRUE(parse_yaml("[" + repeated("1,", most - 1) + "]").has_value());
  EXPECT_THAT(refusal("[" + repeated("1,", most) + "]"), HasSubstr("too many nodes"));
  EXPECT_THAT(refusal("{" + repeated("a: 1,", most) + "}"), HasSubstr("too many nodes"));
  EXPECT_THAT(refusal(repeated("- []\n", most)), HasSubstr("too many nodes"));
}

TEST(YamlTest, ScalarsAreLimited) {
  const std::string longest(limits::kMaxScalarBytes, 'x');
  EXPECT_EQ(parsed(longest), Value(longest));
  EXPECT_THAT(refusal(std::string(limits::kMaxScalarBytes + 1, 'x')), HasSubstr("too long"));
  EXPECT_THAT(refusal("{'" + std::string(limits::kMaxScalarBytes + 1, 'x') + "': 1}"),
              HasSubstr("too long"));
  EXPECT_THAT(refusal("\"" + std::string(1'000'000, 'x')), HasSubstr("parse YAML"));
}

TEST(YamlTest, BrokenTextsAreRefused) {
  for (const std::string& text : {std::string("a\0b", 3),
                                  std::string("\0", 1),
                                  std::string("{a: \xff}"),
                                  std::string("\xc0\x80"),
                                  std::string("\xed\xa0\x80"),
                                  std::string("a: \x01"),
                                  std::string("\xff\xfe"
                                              "a\0",
                                              4),
                                  std::string("["),
                                  std::string("}"),
                                  std::string("'"),
                                  std::string("a: b: c"),
                                  std::string("%"),
                                  std::string("%2"),
                                  std::string("%YAML 9.9\n--- a"),
                                  std::string("@a"),
                                  std::string("`"),
                                  std::string("\t- a"),
                                  std::string("a: |\n b\n\tc: ["),
                                  std::string("\"\\q\""),
                                  std::string("\"\\x\""),
                                  std::string("- a\nb")}) {
    EXPECT_THAT(refusal(text), HasSubstr("parse YAML: ")) << Value(text).inspect();
  }
}

TEST(YamlTest, InvalidUtf8TravelsAsBinary) {
  const std::string bytes = "\xff\xfe a\n";
  EXPECT_EQ(encode_yaml(bytes), "--- !binary |-\n  //4gYQo=\n");
  EXPECT_EQ(parsed(encode_yaml(bytes)), Value(bytes));
  EXPECT_EQ(encode_yaml(Symbol{"a\xff"}), "--- :a\xef\xbf\xbd\n");
}

TEST(YamlTest, ASymbolWithALineBreakIsReadAsAStringAsByRuby) {
  const std::string yaml = "---\n- ! ':a\n\n  b'\n";
  EXPECT_EQ(encode_yaml(List{Symbol{"a\nb"}}), yaml);
  EXPECT_EQ(parsed(yaml), Value(List{":a\nb"}));
  EXPECT_EQ(parsed("! ':a b'"), Value(Symbol{"a b"}));
}

TEST(YamlTest, EveryKindOfValueComesBack) {
  const Value value = Map{{Symbol{"a"}, List{Null{}, true, 1, 1.5, "x", Symbol{"y"}}},
                          {"t", WallTime{1}},
                          {6395, Map{{Symbol{"signaled"}, Set{List{"USR2"}}}}},
                          {Null{}, Set{}}};
  EXPECT_EQ(parsed(encode_yaml(value)), value);
}

TEST(ValueTest, RubyClasses) {
  const std::vector<std::pair<Value, const char*>> cases = {
      {Null{}, "NilClass"}, {true, "TrueClass"}, {false, "FalseClass"},   {3, "Integer"},
      {1.5, "Float"},       {"x", "String"},     {Symbol{"x"}, "Symbol"}, {WallTime{}, "Time"},
      {List{}, "Array"},    {Map{}, "Hash"},     {Set{}, "Set"}};
  for (const auto& [value, name] : cases) {
    EXPECT_EQ(value.ruby_class(), name);
  }
}

}  // namespace
}  // namespace einhorn::wire
