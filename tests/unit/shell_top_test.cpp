// What `top` shows, of any size, without a terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shell/top_view.h"
#include "shell/top_waterfall.h"
#include "wire/json.h"

namespace einhorn::shell {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kNow = 1'700'000'000;

// A pool as its stream tells of it.
class Pool {
 public:
  Pool() : model_("shop", "/run/einhorn-shop.sock") {
    take(R"({"event":"snapshot","after":0,"stream":"1","missed":0,"state":{"number":3,"version":0,)"
         R"("master":41,"guard":40,"failed":false,"respawn":true,"workers":[]}})");
    model_.set_connected(true, "");
  }
  void take(const std::string& line) {
    const Result<wire::Value> event = wire::parse_json(line);
    ASSERT_TRUE(event.has_value()) << line;
    model_.take(*event, line);
  }
  // An event of a worker, so many seconds ago.
  void tell(double ago, const std::string& name, int epoch, const std::string& more = "") {
    take(R"({"event":")" + name + R"(","n":)" + std::to_string(++number_) + R"(,"at":)" +
         std::to_string(kNow - ago) + R"(,"epoch":)" + std::to_string(epoch) + R"(,"slot":)" +
         std::to_string(epoch - 1) + R"(,"pid":)" + std::to_string(1000 + epoch) + more + "}");
  }
  void start(int epoch, double ago, int version = 0) {
    tell(ago, "spawned", epoch, R"(,"version":)" + std::to_string(version));
    tell(ago - 1, "ready", epoch, R"(,"by":"timer","after":1)");
  }
  client::PoolModel& model() { return model_; }

 private:
  client::PoolModel model_;
  int number_ = 0;
};

std::vector<std::string> texts(const std::vector<TopLine>& lines) {
  std::vector<std::string> all;
  all.reserve(lines.size());
  for (const TopLine& line : lines) {
    all.push_back(text_of_line(line));
  }
  return all;
}

std::vector<std::string> drawn(Pool& pool, TopSettings& settings, std::size_t rows = 24,
                               std::size_t columns = 80) {
  return texts(draw_top(pool.model(), settings, rows, columns, kNow));
}

TEST(ShellTop, ShowsEachWorker) {
  Pool pool;
  pool.start(1, 3700);
  pool.start(2, 65);
  pool.tell(5, "spawned", 3, R"(,"version":1)");
  pool.tell(3, "pinged", 2, R"(,"request_id":"a","busy":true)");
  pool.take(
      R"({"event":"sample","after":9,"at":1699999990,"number":3,"ready":2,"sockets":[],"workers":)"
      R"([{"slot":1,"epoch":2,"rss":10485760,"cpu":1.0}]})");
  pool.take(
      R"({"event":"sample","after":9,"at":1699999992,"number":3,"ready":2,"sockets":[)"
      R"({"index":0,"waiting":7,"limit":100}],"workers":[{"slot":1,"epoch":2,"rss":10485760,"cpu":1.5}]})");
  TopSettings settings;
  const std::vector<std::string> lines = drawn(pool, settings);
  EXPECT_THAT(lines[0], HasSubstr("shop  2 of 3 ready  version 0  master 41  guard 40"));
  EXPECT_EQ(lines[1], "workers 3  memory 10.0M  CPU 25.0%  busy 1  waiting 7  crashes 0");
  EXPECT_EQ(lines[3],
            " INDEX^      PID  VER    STATE      AGE   MEMORY   CPU%  BUSY  REQUESTS    PING");
  EXPECT_EQ(lines[4],
            "      0     1001    0    ready    1h01m        -      -     -         -       -");
  EXPECT_EQ(lines[5],
            "      1     1002    0    ready    1m05s    10.0M   25.0  busy         1      3s");
  EXPECT_EQ(lines[6],
            "      2     1003    1 starting       5s        -      -     -         -       -");
}

TEST(ShellTop, FitsEveryWindow) {
  Pool pool;
  for (int epoch = 1; epoch <= 500; ++epoch) {
    pool.start(epoch, 1000 - epoch);
  }
  for (const TopLayout layout :
       {TopLayout::kBoth, TopLayout::kWorkers, TopLayout::kWaterfall, TopLayout::kHelp}) {
    for (std::size_t rows = 0; rows < 60; ++rows) {
      for (const std::size_t columns : {0U, 1U, 20U, 34U, 80U, 200U}) {
        TopSettings settings;
        settings.layout = layout;
        settings.scroll = 10'000;
        const std::vector<std::string> lines = drawn(pool, settings, rows, columns);
        ASSERT_EQ(lines.size(), rows);
        for (const std::string& line : lines) {
          ASSERT_LE(line.size(), columns);
        }
      }
    }
  }
}

TEST(ShellTop, TheWaterfallHasTheRoomThatWorkersDoNotNeed) {
  Pool pool;
  pool.start(100, 20);
  for (int epoch = 1; epoch <= 30; ++epoch) {
    pool.start(epoch, 60 - epoch);
    pool.tell(20, "exited", epoch, R"(,"stopping":true,"how":"exited with status 0","status":0)");
  }
  TopSettings settings;
  const std::vector<std::string> lines = drawn(pool, settings);
  EXPECT_THAT(lines[4], HasSubstr(" 1100 "));
  EXPECT_EQ(lines[5], "");
  const auto bars = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find_last_of('|') != std::string::npos;
  });
  EXPECT_EQ(bars, 15) << "and one for the worker that lives, and a scale";
}

TEST(ShellTop, SortsAndScrolls) {
  Pool pool;
  for (int epoch = 1; epoch <= 100; ++epoch) {
    pool.start(epoch, 1000 - epoch);
  }
  TopSettings settings;
  settings.layout = TopLayout::kWorkers;
  EXPECT_THAT(drawn(pool, settings)[4], HasSubstr(" 1001 "));
  settings.sort = TopColumn::kAge;
  EXPECT_THAT(drawn(pool, settings)[4], HasSubstr(" 1100 ")) << "the youngest first";
  settings.reversed = true;
  EXPECT_THAT(drawn(pool, settings)[4], HasSubstr(" 1001 "));
  settings.scroll = 10;
  EXPECT_THAT(drawn(pool, settings)[4], HasSubstr(" 1011 "));
  EXPECT_THAT(drawn(pool, settings).back(), HasSubstr("workers 11 to 29 of 100"));
  settings.scroll = 1000;
  EXPECT_THAT(drawn(pool, settings).back(), HasSubstr("workers 82 to 100 of 100"));
  EXPECT_EQ(settings.scroll, 81U);
}

TEST(ShellTop, SaysThatThereIsNoMaster) {
  Pool pool;
  pool.start(1, 10);
  pool.model().set_connected(false, "the master closed the connection");
  TopSettings settings;
  const std::vector<std::string> lines = drawn(pool, settings);
  EXPECT_EQ(lines[2], "no master: the master closed the connection; trying again");
  EXPECT_THAT(lines[4], HasSubstr(" 1001 ")) << "what was known stays";
}

TEST(ShellTop, TellsOfAnUpgrade) {
  Pool pool;
  pool.start(1, 100);
  pool.take(
      R"({"event":"upgrade_started","n":90,"at":1699999990,"from":0,"to":1,"kind":"smooth"})");
  pool.start(2, 5, 1);
  TopSettings settings;
  EXPECT_EQ(drawn(pool, settings)[2], "smooth upgrade v0 -> v1: 1 of 3 ready, 1 old ones left");
  pool.take(R"({"event":"upgraded","n":95,"at":1699999999,"version":1})");
  EXPECT_EQ(drawn(pool, settings)[2], "smooth upgrade v0 -> v1: upgraded");
}

TEST(ShellTop, WhatWorkersSayMovesNoCursor) {
  Pool pool;
  pool.model().set_connected(false, "\x1b[2J\nx\xc3\xa4");
  TopSettings settings;
  EXPECT_EQ(drawn(pool, settings)[2], "no master: ?[2J?x??; trying again");
}

TEST(ShellTop, Windows) {
  using std::chrono::minutes;
  EXPECT_EQ(step_window(minutes{5}, true), Duration{minutes{15}});
  EXPECT_EQ(step_window(minutes{5}, false), Duration{minutes{1}});
  EXPECT_EQ(step_window(minutes{1}, false), Duration{minutes{1}});
  EXPECT_EQ(step_window(minutes{60}, true), Duration{minutes{60}});
}

// --- the waterfall ------------------------------------------------------------------------------

std::vector<std::string> fall(Pool& pool, std::size_t rows) {
  // A column is a second: 14 for the label, and one each.
  std::vector<std::string> lines =
      texts(draw_waterfall(pool.model(), std::chrono::minutes{1}, rows, 14 + 60, kNow));
  for (std::string& line : lines) {
    line.resize(line.find_last_not_of(' ') + 1);
  }
  return lines;
}

TEST(ShellTopWaterfall, AnUpgradeIsAStaircase) {
  Pool pool;
  pool.start(1, 100);
  pool.start(2, 90);
  pool.start(3, 40.5, 1);
  pool.tell(39.5, "signaling", 1, R"(,"signal":"USR2","workers":[1])");
  pool.tell(37.5, "exited", 1, R"(,"stopping":true,"how":"exited with status 0","status":0)");
  pool.start(4, 30.5, 1);
  pool.tell(29.5, "signaling", 2, R"(,"signal":"USR2","workers":[2])");
  pool.tell(27.5, "exited", 2, R"(,"stopping":true,"how":"exited with status 0","status":0)");
  EXPECT_THAT(
      fall(pool, 10),
      ElementsAre("   0     1001 00000000000000000000--|",
                  "   1     1002 000000000000000000000000000000--|",
                  "   2     1003                    .1111111111111111111111111111111111111111",
                  "   3     1004                              .111111111111111111111111111111",
                  StartsWith("              -1m")));
}

TEST(ShellTopWaterfall, ACrashLoopIsAComb) {
  Pool pool;
  for (int i = 0; i < 3; ++i) {
    pool.tell(50.5 - 10 * i, "spawned", i + 1, R"(,"version":0)");
    pool.tell(47.5 - 10 * i, "exited", i + 1,
              R"(,"stopping":false,"how":"exited with status 1","status":1)");
  }
  const std::vector<std::string> lines = fall(pool, 10);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_THAT(lines[0], ::testing::EndsWith("1001 " + std::string(9, ' ') + "...X"));
  EXPECT_THAT(lines[2], ::testing::EndsWith("1003 " + std::string(29, ' ') + "...X"));
}

TEST(ShellTopWaterfall, OfManyThoseThatChangedLast) {
  Pool pool;
  for (int epoch = 1; epoch <= 500; ++epoch) {
    pool.start(epoch, 5000 - epoch);
  }
  pool.tell(3, "signaling", 7, R"(,"signal":"USR2","workers":[7])");
  const std::vector<std::string> lines = fall(pool, 6);
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_THAT(lines[0], StartsWith("   6     1007 "));
  EXPECT_THAT(lines[1], StartsWith(" 496     1497 "));
  EXPECT_THAT(lines[4], StartsWith(" 499     1500 "));
  EXPECT_THAT(lines[1], Not(HasSubstr("-")));
}

TEST(ShellTopWaterfall, WhoIsGoneLongAgoIsNotThere) {
  Pool pool;
  pool.start(1, 100);
  pool.tell(61, "exited", 1, R"(,"stopping":true,"how":"exited with status 0","status":0)");
  pool.start(2, 50);
  EXPECT_EQ(fall(pool, 10).size(), 2U);
}

TEST(ShellTopWaterfall, NeedsRoom) {
  Pool pool;
  pool.start(1, 10);
  EXPECT_TRUE(draw_waterfall(pool.model(), std::chrono::minutes{1}, 1, 80, kNow).empty());
  EXPECT_TRUE(draw_waterfall(pool.model(), std::chrono::minutes{1}, 10, 33, kNow).empty());
}

}  // namespace
}  // namespace einhorn::shell
