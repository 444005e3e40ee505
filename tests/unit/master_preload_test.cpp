// Which language code is in, and how what loads it is called.
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/preload.h"

namespace einhorn::master {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Preload, TheLanguageIsToldFromTheEnding) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"app.py", "python"},
      {"/srv/app.py", "python"},
      {"shop.web:serve", "python"},
      {"web:serve", "python"},
      {"web:9serve", ""},
      {"/srv/web:serve", ""},
      {"a:b:c", ""},
      {"app.rb", "ruby"},
      {"config.ru", "ruby"},
      {"app.pl", "perl"},
      {"app.psgi", "perl"},
      {"index.php", "php"},
      {"libapp.so", "c"},
      {"app.js", "node"},
      {"app.mjs", "node"},
      {"app.ts", "node"},
      {"main.go", "go"},
      {"app", ""},
      {"", ""},
      {"py", ""},
  };
  for (const auto& [code, language] : table) {
    EXPECT_EQ(language_of(code), language) << code;
  }
}

TEST(Preload, AScriptWithoutAnEndingSaysItInItsFirstLine) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"#!/usr/bin/env ruby\nputs 1\n", "ruby"},
      {"#!/usr/bin/ruby3.1 -w", "ruby"},
      {"#! /usr/bin/env -S python3 -u\n", "python"},
      {"#!/usr/bin/perl\r\n", "perl"},
      {"#!/usr/bin/env php", "php"},
      {"#!/bin/sh\n# ruby\n", ""},
      {"#!", ""},
      {"puts 1\n#!/usr/bin/ruby", ""},
      {"", ""},
  };
  for (const auto& [text, language] : table) {
    EXPECT_EQ(language_of_script(text), language) << text;
  }
}

TEST(Preload, LanguagesThatCanNotForkSayWhatToDoInstead) {
  for (const char* name : {"python", "ruby", "perl", "php", "c"}) {
    EXPECT_TRUE(check_language(name).has_value()) << name;
  }
  EXPECT_THAT(check_language("node").error().message(), HasSubstr("Start it without -p"));
  EXPECT_THAT(check_language("go").error().message(), HasSubstr("Start the program without -p"));
  EXPECT_THAT(check_language("cobol").error().message(), HasSubstr("--preload-command"));
  EXPECT_THAT(check_language("").error().message(), HasSubstr("can't be told"));
}

TEST(Preload, AnInterpreterIsNoArgumentOfWorkers) {
  wire::Settings settings;
  wire::Program program;
  program.zygote_arguments = {"ruby", "load", "app.rb"};
  settings.preload = "app.rb";
  EXPECT_THAT(zygote_words(settings, program, {"/usr/bin/ruby3.1", "app.rb", "x"}),
              ElementsAre("ruby", "load", "app.rb", "app.rb", "x"));
  EXPECT_THAT(zygote_words(settings, program, {"rubygems", "x"}),
              ElementsAre("ruby", "load", "app.rb", "rubygems", "x"));
  EXPECT_THAT(zygote_words(settings, program, {"python3", "x"}),
              ElementsAre("ruby", "load", "app.rb", "python3", "x"));
  settings.preload_language = "python";
  EXPECT_THAT(zygote_words(settings, program, {"venv/bin/python", "x"}),
              ElementsAre("ruby", "load", "app.rb", "x"));
  settings.preload_command = {"own"};
  program.zygote_arguments = {"own"};
  EXPECT_THAT(zygote_words(settings, program, {"python3", "x"}), ElementsAre("own"));
}

}  // namespace
}  // namespace einhorn::master
