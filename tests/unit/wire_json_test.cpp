// JSON in and out.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "wire/json.h"
#include "wire_psych_inputs.h"

namespace einhorn::wire {
namespace {

using ::testing::HasSubstr;

Value parsed(std::string_view text) {
  Result<Value> value = parse_json(text);
  EXPECT_TRUE(value.has_value()) << (value ? "" : value.error().message());
  return value ? *value : Value("not parsed");
}

std::string refusal(std::string_view text, const YamlLimits& limits = {}) {
  const Result<Value> value = parse_json(text, limits);
  EXPECT_FALSE(value.has_value()) << (value ? value->inspect() : "");
  return value ? "" : value.error().message();
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

TEST(JsonTest, EveryKindIsRead) {
  EXPECT_EQ(parsed(R"({"b": [null, true, false, -3, 1.5, "x\u00e9\n", {}, []], "a": {"c": 1}})"),
            Value(Map{{"b", List{Null{}, true, false, -3, 1.5, "x\xc3\xa9\n", Map{}, List{}}},
                      {"a", Map{{"c", 1}}}}));
  EXPECT_EQ(parsed(" 1 "), Value(1));
  EXPECT_EQ(parsed("\"\\ud83e\\udd84\""), Value("\xf0\x9f\xa6\x84"));
  EXPECT_EQ(parsed("[9223372036854775807, -9223372036854775808]"),
            Value(List{INT64_MAX, INT64_MIN}));
  EXPECT_EQ(parsed("9223372036854775808"), Value(9223372036854775808.0));
  EXPECT_EQ(parsed("1e2"), Value(100.0));
}

TEST(JsonTest, AnythingElseIsRefused) {
  for (const std::string& text : {std::string(""),
                                  std::string("{"),
                                  std::string("{a: 1}"),
                                  std::string("{'a': 1}"),
                                  std::string("[1,]"),
                                  std::string("{\"a\":1} x"),
                                  std::string("{\"a\":1}{}"),
                                  std::string("NaN"),
                                  std::string("01"),
                                  std::string("+1"),
                                  std::string("1e999"),
                                  std::string("\"\xff\""),
                                  std::string("\"\xed\xa0\x80\""),
                                  std::string("\"\\ud800\""),
                                  std::string("\"a\nb\""),
                                  std::string("// x\n1"),
                                  std::string("{\"a\":1}\0", 8),
                                  std::string("\"a\0b\"", 5),
                                  std::string("nul"),
                                  std::string("\"\\u00\""),
                                  std::string("{\"a\" 1}"),
                                  std::string("]")}) {
    EXPECT_THAT(refusal(text), HasSubstr("parse JSON: ")) << Value(text).inspect();
  }
}

TEST(JsonTest, LimitsHoldWhileParsing) {
  const int most = limits::kMaxNesting;
  EXPECT_TRUE(parse_json(repeated("[", most) + repeated("]", most)).has_value());
  EXPECT_THAT(refusal(repeated("[", most + 1) + repeated("]", most + 1)), HasSubstr("deeply"));
  EXPECT_THAT(refusal(repeated("[", 100'000)), HasSubstr("deeply"));
  EXPECT_THAT(refusal(repeated("{\"a\":", 100'000)), HasSubstr("deeply"));
  EXPECT_TRUE(parse_json("[" + repeated("1,", limits::kMaxDocumentNodes - 2) + "1]").has_value());
  EXPECT_THAT(refusal("[" + repeated("1,", limits::kMaxDocumentNodes) + "1]"), HasSubstr("nodes"));
  EXPECT_THAT(refusal('"' + std::string(limits::kMaxScalarBytes + 1, 'x') + '"'),
              HasSubstr("too long"));
  EXPECT_THAT(refusal("{\"" + std::string(limits::kMaxScalarBytes + 1, 'x') + "\":1}"),
              HasSubstr("too long"));
}

TEST(JsonTest, Written) {
  const std::vector<std::pair<Value, const char*>> cases = {
      {Null{}, "null"},
      {true, "true"},
      {-3, "-3"},
      {1.0, "1.0"},
      {1e20, "100000000000000000000.0"},
      {1999999999999999.8, "1999999999999999.8"},
      {1e-7, "1.0e-07"},
      {HUGE_VAL, "null"},
      {std::nan(""), "null"},
      {"a\"\\\b\f\n\r\t\x01\x7f", R"("a\"\\\b\f\n\r\t\u0001\u007f")"},
      {"100% + é 🦄", R"("100\u0025 \u002b \u00e9 🦄")"},
      {"a\xff\xc0z", R"("a\ufffd\ufffdz")"},
      {Symbol{"s"}, "\"s\""},
      {WallTime{1'795'318'160'794'054'719}, "\"2026-11-22T03:29:20.794054719Z\""},
      {Set{List{"a", 1}}, "[\"a\",1]"},
      {List{}, "[]"},
      {Map{}, "{}"},
      {Map{{"a+b", 1}, {Symbol{"c"}, 2}, {3, 4}, {Null{}, 5}, {WallTime{0}, 6}, {List{1}, 7}},
       R"({"a\u002bb":1,"c":2,"3":4,"nil":5,"1970-01-01T00:00:00.000000000Z":6,"[1]":7})"}};
  for (const auto& [value, text] : cases) {
    EXPECT_EQ(encode_json(value), text);
    EXPECT_TRUE(nlohmann::json::accept(encode_json(value))) << text;
  }
}

TEST(JsonTest, WhatIsWrittenIsReadBack) {
  std::string every_byte;
  for (int c = 0; c < 128; ++c) {
    every_byte += static_cast<char>(c);
  }
  const Value value =
      Map{{every_byte, List{Null{}, true, INT64_MIN, 0.1, 1e300, "日本語 🦄"}}};
  const std::string text = encode_json(value);
  EXPECT_EQ(parsed(text), value);
  EXPECT_EQ(text.find_first_of("%+\n"), std::string::npos);
}

TEST(JsonTest, RealNumbersAreReadBack) {
  for (const std::string& text : test_support::reals(3000)) {
    const Value value = std::stod(text);
    EXPECT_EQ(parsed(encode_json(value)), value) << text;
  }
}

}  // namespace
}  // namespace einhorn::wire
