#include <fcntl.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

#include "os/unique_fd.h"
#include "shell/progress.h"
#include "shell/terminal.h"

namespace einhorn::shell {
namespace {

constexpr const char* kState =
    R"({"number": 8, "version": 2, "newest_version": 2, "upgrading": true,)"
    R"( "upgrade": {"from": 1, "to": 2, "smooth": true, "going_back": false, "failures": 1},)"
    R"( "workers": [{"version": 2, "state": "ready"}, {"version": 2, "state": "starting"},)"
    R"( {"version": 1, "state": "ready"}, {"version": 2, "state": "ready"}, {"state": 3}, 4]})";

Progress progress(std::int64_t ready, std::int64_t number) {
  Progress made;
  made.version = 2;
  made.ready = ready;
  made.number = number;
  return made;
}

TEST(ParseProgress, CountsReadyWorkersOfTheVersionOnItsWay) {
  const Result<std::optional<Progress>> parsed = parse_progress(kState);
  ASSERT_TRUE(parsed.has_value());
  Progress expected = progress(2, 8);
  expected.failures = 1;
  EXPECT_EQ(*parsed, expected);
}

TEST(ParseProgress, KnowsTheWayBack) {
  const Result<std::optional<Progress>> parsed = parse_progress(
      R"({"number": 1, "upgrade": {"from": 2, "to": 1, "going_back": true}, "workers": []})");
  ASSERT_TRUE(parsed.has_value());
  ASSERT_TRUE(parsed->has_value());
  EXPECT_EQ((*parsed)->version, 1);
  EXPECT_TRUE((*parsed)->going_back);
}

TEST(ParseProgress, IsNothingWithoutAnUpgrade) {
  const Result<std::optional<Progress>> parsed =
      parse_progress(R"({"number": 1, "upgrade": null, "workers": []})");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed, std::nullopt);
}

TEST(ParseProgress, RefusesWhatIsNoSuchState) {
  for (const char* text :
       {"", "---\n:state:\n  :children: {}\n", "[]", "{}", "3", R"({"number": 1, "workers": []})",
        R"({"number": 1, "upgrade": null})", R"({"number": "x", "upgrade": null, "workers": []})",
        R"({"number": 1, "upgrade": {}, "workers": []})",
        R"({"number": 1, "upgrade": 3, "workers": []})",
        R"({"number": 1, "upgrade": {"to": 2}, "workers": {}})"}) {
    EXPECT_FALSE(parse_progress(text).has_value()) << text;
  }
}

TEST(ParseProgress, TakesALargePool) {
  std::string text = R"({"number": 9000, "upgrade": {"to": 1}, "workers": [)";
  for (int index = 0; index < 9000; ++index) {
    text += index == 0 ? "" : ",";
    text += R"({"version": 1, "state": "ready"})";
  }
  const Result<std::optional<Progress>> parsed = parse_progress(text + "]}");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ((*parsed)->ready, 9000);
}

TEST(DrawProgress, DrawsABarThatFillsTheWidth) {
  EXPECT_EQ(draw_progress(progress(3, 8), 43), "[###-------] 3/8 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(0, 8), 43), "[----------] 0/8 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(8, 8), 43), "[##########] 8/8 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(3, 8), 48), "[#####----------] 3/8 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(3, 8), 1000).size(), 73U);
}

TEST(DrawProgress, StaysWithinTheWidth) {
  const std::string words = "3/8 workers of version 2 ready";
  EXPECT_EQ(draw_progress(progress(3, 8), 37), words);
  EXPECT_EQ(draw_progress(progress(3, 8), 38), "[#----] " + words);
  for (std::size_t width = 0; width < 120; ++width) {
    EXPECT_LE(draw_progress(progress(3, 8), width).size(), width);
  }
}

TEST(DrawProgress, SaysWhatElseThereIs) {
  Progress odd = progress(0, 1);
  odd.failures = 2;
  odd.going_back = true;
  EXPECT_EQ(draw_progress(odd, 64),
            "[-------] 0/1 worker of version 2 ready, 2 failed (rolling back)");
}

TEST(DrawProgress, IsNotLedAstrayByOddNumbers) {
  const std::string full = "[#####] ";
  EXPECT_EQ(draw_progress(progress(9, 8), 38), full + "9/8 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(0, 0), 38), full + "0/0 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(0, -1), 39), full + "0/-1 workers of version 2 ready");
  EXPECT_EQ(draw_progress(progress(-1, 8), 39), "[-----] -1/8 workers of version 2 ready");
}

TEST(CanRedraw, NotOnADumbTerminal) {
  EXPECT_TRUE(can_redraw("xterm"));
  for (const char* kind : {"dumb", "", static_cast<const char*>(nullptr)}) {
    EXPECT_FALSE(can_redraw(kind));
  }
}

TEST(TerminalWidth, IsTheUsualOneWhereNoneIsSaid) { EXPECT_EQ(terminal_width(-1), 80U); }

TEST(StatusLine, IsDrawnOnceClearedOnceAndGoesWithItsObject) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const os::UniqueFd reading(ends[0]);
  const os::UniqueFd writing(ends[1]);
  const auto written = [&reading] {
    char buffer[256];
    const ssize_t got = ::read(reading.get(), buffer, sizeof buffer);
    return got < 0 ? std::string() : std::string(buffer, static_cast<std::size_t>(got));
  };
  {
    StatusLine line(writing.get());
    EXPECT_EQ(line.width(), 77U);
    line.clear();
    EXPECT_EQ(written(), "");
    line.show("1/2");
    EXPECT_EQ(written(), "\r1/2\x1b[K");
    line.show("1/2");
    EXPECT_EQ(written(), "");
    line.clear();
    line.clear();
    EXPECT_EQ(written(), "\r\x1b[K");
    line.show("2/2");
    EXPECT_EQ(written(), "\r2/2\x1b[K");
  }
  EXPECT_EQ(written(), "\r\x1b[K");
}

}  // namespace
}  // namespace einhorn::shell
