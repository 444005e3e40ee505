// Requests in every spelling that clients are known to use, and replies that all of them can read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "wire/json.h"
#include "wire/message.h"
#include "wire/yaml.h"
#include "wire_ruby.h"

namespace einhorn::wire {
namespace {

using test_support::ask_ruby;
using ::testing::HasSubstr;

// The member under that name, or words that say there is none.
Value member(const Value& value, std::string_view key) {
  const Value* found = value.find(key);
  return found != nullptr ? *found : Value("not there");
}

struct Spelling {
  const char* line;
  Language language;
};

TEST(MessageTest, OneRequestInEverySpelling) {
  const Value wanted = Map{{"command", "state"}, {"id", 1}};
  const std::vector<Spelling> spellings = {
      {R"({"command":"state","id":1})", Language::kJson},
      {R"({ "command" : "state" , "id" : 1 } )", Language::kJson},
      {"{\"command\":\"state\",\"id\":1}\r", Language::kJson},
      {"{command: state, id: 1}", Language::kYaml},
      {"{command: state, id: 1} \r", Language::kYaml},
      {"{\"command\": \"state\", id: 1}", Language::kYaml},
      {" {command: state, id: 1}", Language::kYaml},
      {"--- {command: state, id: 1}", Language::kYaml},
      {"--- {\"command\":\"state\",\"id\":1} ", Language::kYaml},
      {"---%0Acommand: state%0Aid: 1%0A", Language::kYaml},
      {"---%0Acommand: state%0Aid: 1%0A \r", Language::kYaml},
      {"--- %0Acommand: state%0Aid: 1%0A", Language::kYaml},
      {"command: state%0Aid: 1", Language::kYaml},
      {"---%0A\"command\": 'state'%0A\"id\": 1%0A", Language::kYaml},
      // Everything escaped.
      {"---%20%0Acommand:%20state%0Aid:%201%0A", Language::kYaml},
      {"---%20%7Bcommand%3A%20state,%20id%3A%201%7D", Language::kYaml},
      {"%7B%22command%22%3A%22state%22%2C%22id%22%3A1%7D", Language::kJson},
      {"%7b%22command%22%3a%22state%22%2c%22id%22%3a1%7d", Language::kJson},
      {"{command:%20state,%20id:%201}", Language::kYaml},
      {"command:%20state%0Aid:%201", Language::kYaml},
      {"---%0acommand: state%0aid: 1%0a", Language::kYaml},
  };
  for (const Spelling& spelling : spellings) {
    const Result<Request> request = parse_request(spelling.line);
    ASSERT_TRUE(request.has_value()) << spelling.line << ": " << request.error().message();
    EXPECT_EQ(request->document, wanted) << spelling.line;
    EXPECT_EQ(request->language, spelling.language) << spelling.line;
  }
}

TEST(MessageTest, OnlyTwoEscapesAreDecodedWhereThatSuffices) {
  const auto text_of = [](std::string_view line) {
    const Result<Request> request = parse_request(line);
    return request ? member(request->document, "x").inspect() : "none";
  };
  EXPECT_EQ(text_of(R"({"command":"c","x":"100%25"})"), "\"100%\"");
  EXPECT_EQ(text_of(R"({"command":"c","x":"%2541"})"), "\"%41\"");
  EXPECT_EQ(text_of(R"({"command":"c","x":"%41%"})"), "\"%41%\"");
  EXPECT_EQ(text_of(R"({"command":"c","x":"a+b"})"), "\"a+b\"");
  EXPECT_EQ(text_of("{command: c, x: '%20'}"), "\"%20\"");
  EXPECT_EQ(text_of("---%0Acommand: c%0Ax: |%0A  1%25%0A  2%0A"), "\"1%\\n2\\n\"");
}

TEST(MessageTest, AMapWithoutCommandIsStillARequest) {
  EXPECT_EQ(parse_request("{}")->document, Value(Map{}));
  EXPECT_EQ(parse_request("{a: '%20'}")->document, Value(Map{{"a", "%20"}}));
}

TEST(MessageTest, SymbolKeysAndEveryKindOfId) {
  const Result<Request> request = parse_request(":command: state%0A:id: [1, {a: ~}]");
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(member(request->document, "command"), Value("state"));
  EXPECT_EQ(member(request->document, "id"), Value(List{1, Map{{"a", Null{}}}}));
}

TEST(MessageTest, AnythingElseIsNoRequest) {
  std::string deep_json = R"({"command":)" + std::string(100'000, '[');
  for (const std::string& line : {std::string(""),
                                  std::string(" "),
                                  std::string("\r"),
                                  std::string("state"),
                                  std::string("[1]"),
                                  std::string("--- state"),
                                  std::string("%"),
                                  std::string("%2"),
                                  std::string("%2G"),
                                  std::string("{"),
                                  std::string("{%"),
                                  std::string("%7B"),
                                  std::string("{command: %"),
                                  std::string("{\"command\":\"a\0\"}", 16),
                                  std::string("\0", 1),
                                  std::string("{\"command\":\"\xff\"}"),
                                  std::string("%FF%FE"),
                                  std::string("%00"),
                                  std::string("command: !ruby/object:Gem {}"),
                                  std::string("{command: &a x, id: *a}"),
                                  std::string(60'000, '['),
                                  std::string(60'000, '%'),
                                  std::string(20'000, '{'),
                                  deep_json,
                                  std::string("command: a: b")}) {
    const Result<Request> request = parse_request(line);
    EXPECT_FALSE(request.has_value()) << Value(line.substr(0, 60)).inspect();
    if (!request) {
      EXPECT_FALSE(request.error().message().empty());
      EXPECT_EQ(request.error().message().find('\n'), std::string::npos);
    }
  }
}

TEST(MessageTest, RepliesInYaml) {
  EXPECT_EQ(encode_reply({"Upgrade done", Value(1), false}, Language::kYaml),
            "---%0Amessage: Upgrade done%0Arequest_id: 1%0A\n");
  EXPECT_EQ(encode_reply({"x", Value(0), true}, Language::kYaml),
            "---%0Amessage: x%0Arequest_id: 0%0Await: true%0A\n");
  EXPECT_EQ(encode_reply({"100%\na + b\n", std::nullopt, true}, Language::kYaml),
            "---%0Amessage: |%0A  100%25%0A  a + b%0A\n");
  EXPECT_EQ(encode_reply({"x", Value(), true}, Language::kYaml), "---%0Amessage: x%0A\n");
  EXPECT_EQ(encode_reply({"x", Value(false), true}, Language::kYaml), "---%0Amessage: x%0A\n");
  EXPECT_EQ(encode_reply({"\xff", std::nullopt, false}, Language::kYaml),
            "---%0Amessage: \"\xef\xbf\xbd\"%0A\n");
}

TEST(MessageTest, RepliesInJson) {
  EXPECT_EQ(encode_reply({"100%\n", Value("a"), true}, Language::kJson),
            "{\"message\":\"100\\u0025\\n\",\"request_id\":\"a\",\"wait\":true}\n");
  EXPECT_EQ(encode_reply({"x", std::nullopt, false}, Language::kJson), "{\"message\":\"x\"}\n");
}

TEST(MessageTest, RepliesComeBack) {
  const std::vector<Value> ids = {0, 1, "a%b\n", 1.5, true, List{1, "x"}, Map{{"k", Null{}}}};
  for (const Value& id : ids) {
    for (const char* text :
         {"", "x", "a\nb%25\n", "- 1\n+ ü🦄\t", "{\"a\":1}", "---\n:state: {}\n"}) {
      for (const Language language : {Language::kYaml, Language::kJson}) {
        const std::string line = encode_reply({text, id, true}, language);
        EXPECT_EQ(line.find('\n'), line.size() - 1);
        const Result<Reply> reply = parse_reply(std::string_view(line).substr(0, line.size() - 1));
        ASSERT_TRUE(reply.has_value()) << line << reply.error().message();
        EXPECT_EQ(reply->message, text);
        EXPECT_EQ(reply->request_id, id);
        EXPECT_TRUE(reply->wait);
      }
    }
  }
}

TEST(MessageTest, RepliesOfOtherMasters) {
  const Result<Reply> old = parse_reply("--- %0Amessage: Welcome%0A\r");
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->message, "Welcome");
  EXPECT_FALSE(old->request_id.has_value());
  EXPECT_FALSE(old->wait);
  EXPECT_THAT(parse_reply("--- x").error().message(), HasSubstr("not a map"));
  EXPECT_THAT(parse_reply("{x: 1}").error().message(), HasSubstr("no message"));
  EXPECT_EQ(parse_reply("{\"event\":\"a\xff\"}")->message, "{\"event\":\"a\xef\xbf\xbd\"}");
  EXPECT_FALSE(parse_reply("").has_value());
  EXPECT_FALSE(parse_reply("{").has_value());
  // The state of a pool of thousands.
  const std::string large(2'000'000, 's');
  const std::string line = encode_reply({large, std::nullopt, false}, Language::kYaml);
  EXPECT_EQ(parse_reply(line)->message, large);
}

TEST(MessageTest, RubyReadsRepliesInBothLanguages) {
  const std::vector<std::string> texts = {
      "",        "x", "a\nb%25\n",         "100% + ü 🦄\t",
      "\x1b[0m", "~", "---\n:state: {}\n", std::string(3000, 'w'),
      "a\n\n"};
  for (const Language language : {Language::kYaml, Language::kJson}) {
    std::vector<std::string> lines;
    lines.reserve(texts.size());
    for (const std::string& text : texts) {
      lines.push_back(encode_reply({text, Value(7), true}, language));
    }
    const std::vector<std::string> answers = ask_ruby(
        "m = YAML.safe_load(x.gsub(/%(25|0A)/, '%25' => '%', '%0A' => \"\\n\"), **permitted)\n"
        "raise 'id' unless m['request_id'] == 7 && m['wait'] == true && m.size == 3\n"
        "m['message']",
        lines);
    for (std::size_t at = 0; at < texts.size(); ++at) {
      EXPECT_EQ(answers[at], texts[at]);
    }
  }
}

TEST(MessageTest, RequestsAreWhatRubyWouldSend) {
  const std::vector<std::string> sources = {
      "{'command' => 'worker:ack', 'pid' => 123}",
      "{'command' => 'signal', 'args' => ['USR2'], 'id' => 2}",
      "{'command' => 'x', 'text' => \"100%\\n+\\n\"}"};
  const std::vector<Value> documents = {
      Map{{"command", "worker:ack"}, {"pid", 123}},
      Map{{"command", "signal"}, {"args", List{"USR2"}}, {"id", 2}},
      Map{{"command", "x"}, {"text", "100%\n+\n"}}};
  const std::vector<std::string> answers = ask_ruby(
      "YAML.dump(eval(x)).gsub(/%|\\n/, '%' => '%25', \"\\n\" => '%0A') + \"\\n\"", sources);
  for (std::size_t at = 0; at < documents.size(); ++at) {
    const std::string line = encode_request(documents[at]);
    EXPECT_EQ(line, answers[at]);
    const Result<Request> request = parse_request(line);
    ASSERT_TRUE(request.has_value());
    EXPECT_EQ(request->document, documents[at]);
    EXPECT_EQ(request->language, Language::kYaml);
  }
}

TEST(MessageTest, EscapesAreTwo) {
  EXPECT_EQ(escape_line("a%b\nc+%0A"), "a%25b%0Ac+%250A");
  EXPECT_EQ(unescape_line("a%25b%0Ac%20%0a%2"), "a%b\nc%20%0a%2");
  EXPECT_EQ(unescape_line("%2525%%0A%"), "%25%\n%");
  for (const char* text : {"", "%", "%%", "\n", "%0A", "%25\n%250A", "%2", "%0"}) {
    EXPECT_EQ(unescape_line(escape_line(text)), text);
  }
}

}  // namespace
}  // namespace einhorn::wire
