// The YAML we write and read, held against Ruby's Psych.
#include <cmath>

#include "wire/scalar_scanner.h"
#include "wire/yaml.h"
#include "wire_psych_inputs.h"
#include "wire_ruby.h"

namespace einhorn::wire {
namespace {

using test_support::ask_ruby;
using test_support::reals;
using test_support::strange_strings;
using test_support::strings;

// Ruby's own scanner fails on a few (`0x_`): those have no bytes to compare with.
void expect_same_bytes(const std::vector<std::string>& inputs, const std::string& in_ruby,
                       Value (*in_value)(const std::string&)) {
  const std::vector<std::string> answers = ask_ruby("YAML.dump(" + in_ruby + ")", inputs);
  std::size_t compared = 0;
  for (std::size_t at = 0; at < inputs.size(); ++at) {
    if (!answers[at].starts_with("ERROR ")) {
      EXPECT_EQ(encode_yaml(in_value(inputs[at])), answers[at]) << Value(inputs[at]).inspect();
      ++compared;
    }
  }
  EXPECT_GT(compared, inputs.size() * 99 / 100);
}

TEST(PsychTest, StringsAreWrittenAsRubyWritesThem) {
  expect_same_bytes(strings(), "x", [](const std::string& text) { return Value(text); });
}

TEST(PsychTest, StrangeStringsAreWrittenAsRubyWritesThem) {
  expect_same_bytes(strange_strings(4000), "x",
                    [](const std::string& text) { return Value(text); });
}

TEST(PsychTest, StringsInCollectionsAreWrittenAsRubyWritesThem) {
  std::vector<std::string> inputs = strange_strings(1000);
  inputs.insert(inputs.end(), strings().begin(), strings().begin() + 250);
  expect_same_bytes(inputs, "{x => [x, {'k' => x}]}", [](const std::string& text) {
    return Value(Map{{text, List{text, Map{{"k", text}}}}});
  });
}

TEST(PsychTest, SymbolsAreWrittenAsRubyWritesThem) {
  std::vector<std::string> inputs = strange_strings(500);
  inputs.insert(inputs.end(), strings().begin(), strings().begin() + 250);
  expect_same_bytes(inputs, "{x.to_sym => x.to_sym}", [](const std::string& text) {
    return Value(Map{{Symbol{text}, Symbol{text}}});
  });
}

TEST(PsychTest, BytesAreWrittenAsRubyWritesThem) {
  std::vector<std::string> inputs = {
      "\xff",         "\xff\xfe", std::string(100, '\xff'), "a\nb\x80",
      "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80",       "\xe2\x82"};
  expect_same_bytes(inputs, "[x.b, {'k' => x.b}]", [](const std::string& text) {
    return Value(List{text, Map{{"k", text}}});
  });
}

TEST(PsychTest, RealNumbersAreWrittenAsRubyWritesThem) {
  expect_same_bytes(reals(3000), "Float(x)",
                    [](const std::string& text) { return Value(std::stod(text)); });
}

struct Document {
  const char* ruby;
  Value value;
};

std::vector<Document> documents() {
  const WallTime time{1'795'318'160'794'054'719};
  return {
      {"nil", Null{}},
      {"true", true},
      {"[false, true, nil]", List{false, true, Null{}}},
      {"[0, -1, 2**63 - 1, -2**63]", List{0, -1, INT64_MAX, INT64_MIN}},
      {"[1.0, -0.0, 1e15, 1e14, 123456789012345.6, 1e-4, 1e-5, 1.5e300, 0.1, 100.0]",
       List{1.0, -0.0, 1e15, 1e14, 123456789012345.6, 1e-4, 1e-5, 1.5e300, 0.1, 100.0}},
      {"[Float::INFINITY, -Float::INFINITY, Float::NAN, 5e-324, 1.7976931348623157e308]",
       List{HUGE_VAL, -HUGE_VAL, std::nan(""), 5e-324, 1.7976931348623157e308}},
      {"{}", Map{}},
      {"[]", List{}},
      {"[[], {}, [[]], [{}], nil, [nil], {a: nil}]",
       List{List{}, Map{}, List{Value(List{})}, List{Map{}}, Null{}, List{Null{}},
            Map{{Symbol{"a"}, Null{}}}}},
      {"{a: {b: {c: [1, [2, [3]]]}}}",
       Map{{Symbol{"a"}, Map{{Symbol{"b"}, Map{{Symbol{"c"}, List{1, List{2, List{3}}}}}}}}}},
      {"{nil => 1, 1 => 2, true => 3, 1.5 => 4, [1] => 5, {a: 1} => 6}",
       Map{{Null{}, 1}, {1, 2}, {true, 3}, {1.5, 4}, {List{1}, 5}, {Map{{Symbol{"a"}, 1}}, 6}}},
      {"Set.new", Set{}},
      {"Set.new(['USR2', 1, :a])", Set{List{"USR2", 1, Symbol{"a"}}}},
      {"{s: Set.new, t: Set.new(['x'])}", Map{{Symbol{"s"}, Set{}}, {Symbol{"t"}, Set{List{"x"}}}}},
      {"[Set.new([Set.new, [], nil])]", List{Set{List{Set{}, List{}, Null{}}}}},
      {"Time.at(1795318160, 794054719, :nsec)", time},
      {"[Time.at(0), Time.at(-1, 1, :nsec), Time.at(951782400), Time.at(4107542399)]",
       List{WallTime{0}, WallTime{-999'999'999}, WallTime{951'782'400'000'000'000},
            WallTime{4'107'542'399'000'000'000}}},
      {"{Time.at(0) => 1}", Map{{WallTime{0}, 1}}},
      {"{('k' * 128) => 1, ('k' * 129) => 2, ('k' * 140).to_sym => 3}",
       Map{{std::string(128, 'k'), 1},
           {std::string(129, 'k'), 2},
           {Symbol{std::string(140, 'k')}, 3}}},
      {"{'message' => \"a\\nb\\n\", 'request_id' => 1, 'wait' => true}",
       Map{{"message", "a\nb\n"}, {"request_id", 1}, {"wait", true}}},
      {":\"\"", Symbol{""}},
  };
}

TEST(PsychTest, DocumentsAreWrittenAsRubyWritesThem) {
  std::vector<std::string> sources;
  for (const Document& document : documents()) {
    sources.emplace_back(document.ruby);
  }
  const std::vector<std::string> answers = ask_ruby("YAML.dump(eval(x))", sources);
  for (std::size_t at = 0; at < sources.size(); ++at) {
    EXPECT_EQ(encode_yaml(documents()[at].value), answers[at]) << sources[at];
  }
}

TEST(PsychTest, DocumentsInspectAsInRuby) {
  std::vector<std::string> sources;
  for (const Document& document : documents()) {
    sources.emplace_back(document.ruby);
  }
  const std::vector<std::string> answers = ask_ruby(
      "x = eval(x)\n x = x.utc if x.is_a?(Time)\n"
      "x.inspect.gsub(/(\\d\\d) \\+0000/, '\\1 UTC')",
      sources);
  for (std::size_t at = 0; at < sources.size(); ++at) {
    EXPECT_EQ(documents()[at].value.inspect(), answers[at]) << sources[at];
  }
}

TEST(PsychTest, StringsInspectAsInRuby) {
  std::vector<std::string> inputs = strange_strings(500);
  for (const char* text :
       {"#{x}", "#$x", "#@x", "# x", "#", "\a\b\v\f\x1b\x01\x7f", "\377a", "\xe2\x82"}) {
    inputs.emplace_back(text);
  }
  const std::vector<std::string> answers = ask_ruby("x.inspect", inputs);
  const std::vector<std::string> symbols = ask_ruby("x.to_sym.inspect", inputs);
  for (std::size_t at = 0; at < inputs.size(); ++at) {
    EXPECT_EQ(Value(inputs[at]).inspect(), answers[at]);
    // Ruby has its own ideas about strange names that end in `=`, and escapes ASCII names as bytes.
    const bool odd = inputs[at].ends_with('=') || inputs[at].find('\x01') != std::string::npos;
    if (!odd && !symbols[at].starts_with("ERROR")) {
      EXPECT_EQ(Value(Symbol{inputs[at]}).inspect(), symbols[at]);
    }
  }
}

// What a text means, in words that both sides can form.
std::string in_words(const Value& value) {
  if (const double* real = value.as_real()) {
    return "Float " + text::ruby_real(*real);
  }
  if (const WallTime* time = value.as_time()) {
    return "Time " + std::to_string(time->nanoseconds);
  }
  return std::string(value.ruby_class()) + ' ' + value.inspect();
}

constexpr const char* kInWords =
    "v = YAML.safe_load(x, **permitted)\n"
    "v = v.to_f if v.is_a?(Integer) && v.bit_length > 63\n"
    "case v\n"
    "when Float then \"Float #{v}\"\n"
    "when Time then \"Time #{v.to_i * 1_000_000_000 + v.nsec}\"\n"
    "else \"#{v.class} #{v.inspect}\"\n"
    "end";

void expect_same_meaning(const std::vector<std::string>& inputs) {
  const std::vector<std::string> answers = ask_ruby(kInWords, inputs);
  for (std::size_t at = 0; at < inputs.size(); ++at) {
    ASSERT_FALSE(answers[at].empty()) << Value(inputs[at]).inspect();
    const Result<Value> value = parse_yaml(inputs[at]);
    if (answers[at] == "ERROR Psych::SyntaxError") {
      EXPECT_FALSE(value.has_value()) << Value(inputs[at]).inspect();
    } else if (!answers[at].starts_with("ERROR ")) {
      // Anchors are refused, aliases and tags are not what is tested here.
      const bool refused = inputs[at].find_first_of("&*!") != std::string::npos;
      if (value || !refused) {
        ASSERT_TRUE(value.has_value()) << Value(inputs[at]).inspect() << ": "
                                       << value.error().message() << "; Ruby: " << answers[at];
        if (value->as_time() == nullptr && answers[at].starts_with("Time ")) {
          continue;  // beyond our years
        }
        EXPECT_EQ(in_words(*value), answers[at]) << Value(inputs[at]).inspect();
      }
    }
  }
}

TEST(PsychTest, PlainScalarsMeanWhatTheyMeanToRuby) {
  std::vector<std::string> inputs(strings().begin(), strings().begin() + 250);
  for (const char* text : {"9223372036854775807",
                           "9223372036854775808",
                           "-9223372036854775808",
                           "123456789012345678901234567890",
                           "0x7fffffffffffffff",
                           "0xffffffffffffffff",
                           "-0x10",
                           "+0b101",
                           "-0777",
                           "1_000_000",
                           "1,000,000.5",
                           "1.5e+308",
                           "1.5e+400",
                           "1.0e-400",
                           "-1:30",
                           "190:20:30",
                           "190:20:30.15",
                           "1_0:30",
                           "00:00",
                           "2026-11-22 03:29:20.794054719 +00:00",
                           "2026-11-22 03:29:20.794054719 Z",
                           "2026-11-22 03:29:20.7940547199",
                           "2026-11-22t3:29:20z",
                           "2026-11-22  \t3:29:20  +1",
                           "2026-11-22 03:29:20 -05:30",
                           "2026-11-22 03:29:20 -00:30",
                           "2026-11-22 03:29:20 +0530",
                           "2026-11-22 24:00:00",
                           "2026-11-22 23:59:60",
                           "2026-04-31 00:00:00",
                           ":'a b'",
                           ":\"a\"b",
                           ":\":a\"",
                           ": a",
                           "!!str 12",
                           "!!int '12'",
                           "!!float 12",
                           "! a",
                           "! 12",
                           "'12'",
                           "\"12\"",
                           "!binary aGVsbG8=",
                           "!!binary |\n aGVs\n bG8=\n",
                           "!ruby/symbol a b",
                           "!ruby/sym x",
                           "!ruby/object:Set\nhash:\n  a: true\n  1: true\n",
                           "a\n\nb",
                           "yes\n\nno",
                           "{a: 1, b: [x, ~]}",
                           "- a\n- :b\n",
                           "---\n",
                           "--- \n",
                           "# x\n",
                           "",
                           "--- a\n--- b\n",
                           "--- {a: 1}\n...\ngarbage: [",
                           "? a\n: b\n",
                           "{a, b}",
                           "|\n  a\n  b\n"}) {
    inputs.emplace_back(text);
  }
  expect_same_meaning(inputs);
}

TEST(PsychTest, StrangeTextsMeanWhatTheyMeanToRuby) { expect_same_meaning(strange_strings(4000)); }

TEST(PsychTest, WhatWeWriteRubyReadsBack) {
  const std::vector<std::string> inputs = strange_strings(1000);
  std::vector<std::string> written;
  written.reserve(inputs.size());
  for (const std::string& input : inputs) {
    written.push_back(encode_yaml(Map{{"k", input}, {Symbol{"l"}, List{input}}}));
  }
  const std::vector<std::string> answers = ask_ruby(
      "v = YAML.safe_load(x, **permitted)\nraise 'differ' unless v['k'] == v[:l][0]\nv['k']",
      written);
  EXPECT_EQ(answers, inputs);
}

TEST(PsychTest, WhatWeWriteWeReadBack) {
  std::vector<std::string> inputs = strange_strings(2000);
  inputs.insert(inputs.end(), strings().begin(), strings().end());
  for (const std::string& input : inputs) {
    const Value value = Map{{input, List{input}}};
    const Result<Value> read = parse_yaml(encode_yaml(value));
    ASSERT_TRUE(read.has_value()) << value.inspect() << read.error().message();
    EXPECT_EQ(*read, value) << value.inspect();
  }
}

}  // namespace
}  // namespace einhorn::wire
