// The config file: what it says, what is wrong with it and where, and how it goes together with the
// command line.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/configure.h"
#include "master/expression.h"
#include "master/print_config.h"
#include "wire/json.h"

namespace einhorn::master {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;
using Files = std::map<std::string, std::string>;

Configuration configured(const Files& files, const Words& words) {
  return configure(words, [&files](const std::string& path, std::size_t) -> Result<std::string> {
    const auto found = files.find(path);
    if (found == files.end()) {
      return Error{ENOENT, "read " + path, ""};
    }
    return found->second;
  });
}

Configuration of(const std::string& text, Words words = {}) {
  words.insert(words.begin(), {"--config", "x.yaml"});
  return configured({{"x.yaml", text}}, words);
}

Words complaints(const Configuration& configuration) {
  Words lines;
  for (const Error& error : configuration.errors) {
    lines.push_back(error.message());
  }
  return lines;
}

Words complaints(const std::string& text, Words words = {}) {
  return complaints(of(text, std::move(words)));
}

TEST(Configure, WhatIsPreloadedMaySayItsLanguageItself) {
  const Files files = {{"/srv/app/time_server", "#!/usr/bin/env ruby\nputs 1\n"},
                       {"/srv/app/shop.rb", "#!/usr/bin/python3\n"},
                       {"/srv/app/tool", "#!/bin/sh\n"}};
  const auto language = [&files](const std::string& code, Words more = {}) {
    Words words = {"-p", code, "--chdir", "/srv/app"};
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {"--", "x"});
    const Configuration read = configured(files, words);
    return read.errors.empty() ? read.options.settings.preload_language : read.errors[0].message();
  };
  EXPECT_EQ(language("time_server"), "ruby");
  EXPECT_EQ(language("/srv/app/time_server"), "ruby");
  EXPECT_EQ(language("time_server", {"--preload-language", "perl"}), "perl");
  EXPECT_EQ(language("shop.rb"), "") << "the ending says it";
  EXPECT_THAT(language("tool"), HasSubstr("can't be told from its ending"));
  EXPECT_THAT(language("missing"), HasSubstr("can't be told from its ending"));
}

TEST(Expression, WhatTheyComeTo) {
  const std::vector<std::pair<std::string, std::int64_t>> table = {{"auto", 8},
                                                                   {"cpus", 8},
                                                                   {"2*cpus+1", 17},
                                                                   {"2 * cpus + 1", 17},
                                                                   {"cpus/3", 2},
                                                                   {"cpus-1", 7},
                                                                   {"(cpus+1)*2", 18},
                                                                   {"1.5*cpus", 12},
                                                                   {"max(2, cpus/4)", 2},
                                                                   {"min(cpus,4,6)", 4},
                                                                   {"10-2-3", 5},
                                                                   {"0.1+0.2+0.7", 1},
                                                                   {"2*max(cpus, 3)/4", 4}};
  for (const auto& [text, value] : table) {
    const Result<std::int64_t> result = evaluate(text, 8);
    ASSERT_TRUE(result) << text << ": " << result.error().message();
    EXPECT_EQ(*result, value) << text;
  }
}

TEST(Expression, WhatIsRefused) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"cpus/0", "it divides by zero"},
      {"cpu", "\"cpu\" means nothing"},
      {"2*", "it ends where a number should be"},
      {"(cpus", "a parenthesis is not closed"},
      {"cpus cpus", "what stands from \"cpus\" on is not understood"},
      {"2**3", "there is no number at \"*3\""},
      {"max cpus", "max needs parentheses"},
      {"9e9*2", "what stands from \"e9*2\" on is not understood"},
      {"999999999999*999999999999", "the result is too large"},
      {std::string(40, '(') + "1", "it is nested too deeply"}};
  for (const auto& [text, why] : table) {
    const Result<std::int64_t> result = evaluate(text, 8);
    ASSERT_FALSE(result) << text;
    EXPECT_THAT(result.error().message(), HasSubstr(why));
  }
  EXPECT_FALSE(evaluate(std::string(300, '1'), 8));
}

TEST(Configure, EveryKindOfValue) {
  const Configuration whole = of(R"(
command: [server, --port, "{fd}"]
bind:
  - 127.0.0.1:8080
  - 'unix:/tmp/x.sock'
number: 2*2
socket-mode: 0660
kill-children-on-exit: yes
gc-before-fork: false
reexec-as: [my einhorn, -x]
env: {A: 1, B: "two words", C: true, D: ""}
intercept: true
)");
  ASSERT_THAT(complaints(whole), ElementsAre());
  const Options& options = whole.options;
  EXPECT_EQ(options.mode, Options::Mode::kRun);
  EXPECT_THAT(options.command, ElementsAre("server", "--port", "{fd}"));
  ASSERT_EQ(options.binds.size(), 2U);
  EXPECT_EQ(options.binds[1].host, "/tmp/x.sock");
  EXPECT_EQ(options.config.number, 4U);
  EXPECT_EQ(options.settings.socket_mode, 0660U);
  EXPECT_TRUE(options.settings.kill_children_on_exit);
  EXPECT_FALSE(options.settings.gc_before_fork);
  EXPECT_THAT(options.settings.reexec_commandline, ElementsAre("my einhorn", "-x"));
  EXPECT_THAT(options.settings.variables, ElementsAre("A=1", "B=two words", "C=true", "D="));
  EXPECT_EQ(options.config.ack_mode, pool::AckMode::kListen);
  EXPECT_THAT(of("command: a 'b c'").options.command, ElementsAre("a", "b c"));
}

TEST(Configure, EveryMistakeHasItsPlace) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"\nwokers: 3", "x.yaml:2:1: unknown key 'wokers', did you mean 'workers'?"},
      {"max_unacked: 3", "x.yaml:1:1: unknown key 'max_unacked', did you mean 'max-unacked'?"},
      {"qwertyuiop: 3", "x.yaml:1:1: unknown key 'qwertyuiop'"},
      {"number: many", "x.yaml:1:9: number: \"many\" is not a whole number (allowed: 1 to 100000)"},
      {"number:", "x.yaml:1:8: number: its value is missing"},
      {"number: [3]", "x.yaml:1:9: number: one value is needed, not a list"},
      {"number: {a: 3}", "x.yaml:1:9: number: one value is needed, not a map"},
      {"number: ''", "x.yaml:1:9: number: its value is empty"},
      {"number: \"3\\0\"", "x.yaml:1:9: number: a zero byte is in its value"},
      {"a: &x 1", "x.yaml:1:4: anchors (&NAME) are not allowed here"},
      {"number: *x", "x.yaml:1:9: aliases (*NAME) are not allowed here"},
      {"number: !!int 3", "x.yaml:1:9: tags (!NAME) are not allowed here"},
      {"number: 3\nnumber: 4", "x.yaml:2:1: \"number\" is there twice (first in line 1)"},
      {"number: 3\n--- \nnumber: 4", "x.yaml:2:1: a second document begins; there may be only one"},
      {"[a]: 3", "x.yaml:1:1: a key must be a plain word"},
      {"- number", "x.yaml:1:1: options should stand here, each as `NAME: VALUE`"},
      {"hello", "x.yaml:1:1: options should stand here, each as `NAME: VALUE`"},
      {"config: y.yaml", "x.yaml:1:1: 'config' is for the command line only"},
      {"help: true", "x.yaml:1:1: 'help' is for the command line only"},
      {"kill-children-on-exit: 3", "x.yaml:1:24: kill-children-on-exit: true or false is needed"},
      {"env: [A=b]", "x.yaml:1:6: env: variables should stand here, each as `NAME: VALUE`"},
      {"env: {1: 2}",
       "x.yaml:1:7: env: it is no variable (allowed: NAME=VALUE; letters, digits and _ in NAME)"},
      {"env: {A: [hush]}", "x.yaml:1:10: env: A: one value is needed, not a list"},
      {"env: {EINHORN_FD_0: 3}", "x.yaml:1:7: env: \"EINHORN_FD_0\" is set by Einhorn itself"},
      {"command: []", "x.yaml:1:10: command: it names no program"},
      {"command: a 'b", "x.yaml:1:10: command: has an unbalanced '"},
      {"pools: 3",
       "x.yaml:1:8: pools: names of pools should stand here, each with its own options"},
      {"pools: {a/b: }",
       "x.yaml:1:9: 'a/b' can't be the name of a pool (allowed: no slashes, no control characters, "
       "no - in front)"},
      {"pools: {a: 3}",
       "x.yaml:1:12: the options of pool 'a' should stand here, each as `NAME: VALUE`"},
      {"pools:\n  web:\n    pools: {}", "x.yaml:3:5: 'pools' may not stand inside of a pool"},
      {"pools:\n  web:\n    wokers: 3",
       "x.yaml:3:5: unknown key 'wokers', did you mean 'workers'?"},
  };
  for (const auto& [text, complaint] : table) {
    EXPECT_THAT(complaints(text), ElementsAre(complaint)) << text;
  }
}

TEST(Configure, AllMistakesAreSaidAtOnce) {
  EXPECT_THAT(complaints("numbr: 3\nbacklog: 0\nbind: [80, 'x:y:z']").size(), 3U);
}

TEST(Configure, WhatIsNoYaml) {
  for (const std::string text : {"a: [", "a: b: c", "\xff\xfe\xfa", "a:\n\t- b", "'", "{",
                                 "%YAML 9", "a\x01: 3", "\"\\u\""}) {
    const Words lines = complaints(text);
    ASSERT_EQ(lines.size(), 1U) << text;
    EXPECT_THAT(lines[0], ::testing::MatchesRegex("x.yaml:[0-9]+:[0-9]+: not YAML: [^\n]+"));
  }
}

TEST(Configure, WhatIsTooMuch) {
  EXPECT_THAT(complaints("a: " + std::string(100, '[')),
              ElementsAre("x.yaml:1:19: nested too deeply (allowed: 16 levels)"));
  std::string wide = "bind: [";
  for (int i = 0; i < 30'000; ++i) {
    wide += "1,";
  }
  EXPECT_THAT(complaints(wide + "1]"), ElementsAre(HasSubstr("too large (allowed: 20000 values)")));
}

TEST(Configure, FilesThatAreNotThere) {
  EXPECT_THAT(complaints(configured({}, {"--config", "gone.yaml"})),
              ElementsAre("--config: read gone.yaml: No such file or directory"));
  EXPECT_THAT(complaints(configured({}, {"--env-file", "gone", "x"})),
              ElementsAre("--env-file: read gone: No such file or directory"));
}

TEST(Configure, TheCommandLineComesFirst) {
  const Configuration whole =
      of("number: 2\nbind: [1, 2]\nbacklog: 7\nenv: {A: 1, B: 2}\ncommand: a b",
         {"-n", "5", "-b", "3", "--env", "B=3", "c"});
  ASSERT_THAT(complaints(whole), ElementsAre());
  EXPECT_EQ(whole.options.config.number, 5U);
  ASSERT_EQ(whole.options.binds.size(), 1U);
  EXPECT_EQ(whole.options.binds[0].port, 3);
  EXPECT_EQ(whole.options.settings.backlog, 7);
  EXPECT_THAT(whole.options.settings.variables, ElementsAre("A=1", "B=3"));
  EXPECT_THAT(whole.options.command, ElementsAre("c"));
}

TEST(Configure, APoolComesBeforeWhatIsCommon) {
  const std::string text =
      "number: 2\nenv: {A: 1}\ncommand: a\npools:\n  web: {number: 4, bind: 1}\n  job: {command: "
      "b}\n";
  const Configuration web = of(text, {"--pool", "web"});
  ASSERT_THAT(complaints(web), ElementsAre());
  EXPECT_EQ(web.options.config.number, 4U);
  EXPECT_EQ(web.options.settings.name, "web");
  EXPECT_THAT(web.options.command, ElementsAre("a"));
  const Configuration job = of(text, {"--pool", "job"});
  EXPECT_EQ(job.options.config.number, 2U);
  EXPECT_THAT(job.options.command, ElementsAre("b"));
  EXPECT_THAT(job.pools, ElementsAre("web", "job"));
  EXPECT_THAT(complaints(text), ElementsAre("x.yaml: it has several pools (web, job): `einhorn up` "
                                            "runs them all, --pool NAME one of them"));
  EXPECT_THAT(complaints(text, {"--pool", "wbe"}),
              ElementsAre("--pool wbe: x.yaml has no such pool; it has web, job"));
  EXPECT_THAT(complaints("command: a", {"--pool", "web"}),
              ElementsAre("--pool web: x.yaml has no `pools`"));
  EXPECT_THAT(
      complaints("socket-path: s\npools: {a: {command: x}}", {"--pool", "a"}),
      ElementsAre("x.yaml:1:14: socket-path: every pool needs its own; put it into the pool"));
}

TEST(Configure, NoProgramNoPool) {
  EXPECT_THAT(complaints("number: 3"),
              ElementsAre("x.yaml: it names no program: `command` is missing"));
  EXPECT_THAT(complaints(""), ElementsAre("x.yaml: it names no program: `command` is missing"));
}

TEST(Configure, FilesOfVariables) {
  const Files files = {{"e",
                        "# a comment\n\nA=1\nexport B = two words \nC='a \"b\" \\n'\n"
                        "D=\"x\\n\\\"y\\\" \\$z\"\r\nE=\nA=2"}};
  const Configuration whole = configured(files, {"--env-file", "e", "--env", "B=3", "x"});
  ASSERT_THAT(complaints(whole), ElementsAre());
  EXPECT_THAT(whole.options.settings.variables,
              ElementsAre("A=2", "B=3", "C=a \"b\" \\n", "D=x\n\"y\" $z", "E="));
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"A=1\nhush", "e:2:1: this line is no NAME=VALUE"},
      {"A='hush", "e:1:1: a quote is not closed, or something stands behind it"},
      {"A=\"x\" hush", "e:1:1: a quote is not closed, or something stands behind it"},
      {"A-B=hush", "e:1:1: it is no variable (allowed: NAME=VALUE; letters, digits and _ in NAME)"},
      {"LISTEN_FDS=3", "e:1:1: \"LISTEN_FDS\" is set by Einhorn itself"}};
  for (const auto& [text, complaint] : wrong) {
    const Configuration bad = configured({{"e", text}}, {"--env-file", "e", "x"});
    EXPECT_THAT(complaints(bad), ElementsAre(complaint));
    EXPECT_THAT(complaints(bad)[0], Not(HasSubstr("hush")));
  }
}

TEST(PrintConfig, IsAConfigFileThatSaysTheSame) {
  const Configuration whole = of(
      "number: 2*2\nbind: [127.0.0.1:1, '[::1]:2']\nkill-children-on-exit: true\nintercept: true\n"
      "env: {PASSWORD: hush}\nchdir: 'a: b # c'\ncommand: [x, 'yes', '', \"a\\nb\"]",
      {"--backlog", "9"});
  ASSERT_THAT(complaints(whole), ElementsAre());
  const std::string printed = print_config(whole);
  EXPECT_THAT(printed, HasSubstr("number: 4 "));
  EXPECT_THAT(printed, HasSubstr("# x.yaml:1:9 (2*2)\n"));
  EXPECT_THAT(printed, HasSubstr("# command line\n"));
  EXPECT_THAT(printed, HasSubstr("# default with intercept\n"));
  EXPECT_THAT(printed, HasSubstr("  PASSWORD: '***' "));
  EXPECT_THAT(printed, Not(HasSubstr("hush")));
  const Configuration again = of(printed);
  ASSERT_THAT(complaints(again), ElementsAre()) << printed;
  EXPECT_EQ(again.options.config.number, 4U);
  EXPECT_EQ(again.options.settings.backlog, 9);
  EXPECT_EQ(again.options.command, whole.options.command);
  EXPECT_EQ(again.options.settings.directory, "a: b # c");
  EXPECT_EQ(again.options.binds.size(), 2U);
}

TEST(ConfigSchema, HasEveryKey) {
  const Result<wire::Value> schema = wire::parse_json(config_schema());
  ASSERT_TRUE(schema) << schema.error().message();
  const wire::Value* properties = schema->find("properties");
  ASSERT_NE(properties, nullptr);
  for (const OptionRule& rule : option_table()) {
    EXPECT_EQ(properties->find(rule.name) != nullptr, is_for_files(rule)) << rule.name;
  }
  EXPECT_NE(properties->find("pools"), nullptr);
  EXPECT_NE(properties->find("command"), nullptr);
}

}  // namespace
}  // namespace einhorn::master
