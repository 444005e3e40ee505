#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "capture/format.h"
#include "capture/line_cutter.h"
#include "capture/tail.h"

namespace einhorn::capture {
namespace {

using End = Line::End;

struct Piece {
  std::string text;
  End end;
  bool operator==(const Piece&) const = default;
};

// A pipe with a cutter at its end: what was not taken comes first again.
struct Cut {
  LineCutter cutter;
  std::string left;
  std::vector<Piece> pieces;
  void write(const std::string& bytes, bool take = false, std::size_t most_left = 100) {
    left += bytes;
    left.erase(0, cutter.cut(left, most_left, take, sink()));
  }
  LineCutter::Sink sink() {
    return [this](const Line& line) { pieces.push_back({std::string(line.text), line.end}); };
  }
};

TEST(CaptureLines, AreCutAtTheirEnds) {
  Cut cut;
  cut.write("one\ntwo\n\nthr");
  EXPECT_EQ(cut.pieces,
            (std::vector<Piece>{{"one", End::kWhole}, {"two", End::kWhole}, {"", End::kWhole}}));
  EXPECT_EQ(cut.left, "thr");
  cut.write("ee\n");
  EXPECT_EQ(cut.pieces.back(), (Piece{"three", End::kWhole}));
  EXPECT_EQ(cut.left, "");
}

TEST(CaptureLines, ABeginningIsTakenInWhenItMustBe) {
  Cut cut;
  cut.write("begin", true);
  EXPECT_TRUE(cut.pieces.empty());
  EXPECT_EQ(cut.left, "");
  cut.write("ning\nnext");
  EXPECT_EQ(cut.pieces.at(0), (Piece{"beginning", End::kWhole}));
  cut.write(std::string(101, 'x'));
  EXPECT_EQ(cut.left, "");
  cut.cutter.finish(cut.sink());
  EXPECT_EQ(cut.pieces.at(1), (Piece{"next" + std::string(101, 'x'), End::kUnfinished}));
  cut.cutter.finish(cut.sink());
  EXPECT_EQ(cut.pieces.size(), 2U);
}

TEST(CaptureLines, LongOnesComeInPieces) {
  for (const std::size_t length : {kMostLine - 1, kMostLine, kMostLine + 1, 3 * kMostLine + 5}) {
    for (const std::size_t step : {std::size_t{1} << 20U, std::size_t{1000}, kMostLine}) {
      Cut cut;
      const std::string line(length, 'y');
      for (std::size_t at = 0; at < length; at += step) {
        cut.write(line.substr(at, step), true);
      }
      cut.write("\nnext\n");
      std::string together;
      for (std::size_t i = 0; i + 1 < cut.pieces.size(); ++i) {
        together += cut.pieces[i].text;
        EXPECT_LE(cut.pieces[i].text.size(), kMostLine);
        EXPECT_EQ(cut.pieces[i].end, i + 2 < cut.pieces.size() ? End::kMore : End::kWhole);
      }
      EXPECT_EQ(together, line);
      EXPECT_EQ(cut.pieces.back(), (Piece{"next", End::kWhole}));
    }
  }
}

constexpr WallTime kTime{1'790'000'000'123'456'789};
const Author kAuthor{4711, 2, 9, 3};

std::string text_of(bool json, std::size_t most, const Line& line) {
  std::string out;
  Format(json, most).line(out, kTime, kAuthor, Stream::kError, line);
  return out;
}

TEST(CaptureFormat, TextAndJson) {
  EXPECT_EQ(text_of(false, 4096, {"a \xff\ttext", End::kWhole}),
            "2026-09-21T14:13:20.123Z [WORKER 4711 index=2 version=3 stderr] a \xff\ttext\n");
  EXPECT_EQ(text_of(false, 4096, {"end", End::kUnfinished}),
            "2026-09-21T14:13:20.123Z [WORKER 4711 index=2 version=3 stderr unfinished] end\n");
  EXPECT_EQ(text_of(true, 4096, {"\"\\\x01\xc3\xa4\xff", End::kMore}),
            "{\"time\":\"2026-09-21T14:13:20.123Z\",\"worker\":4711,\"index\":2,\"version\":3,"
            "\"stream\":\"stderr\",\"more\":true,\"line\":\"\\\"\\\\\\u0001\xc3\xa4\\ufffd\"}\n");
}

TEST(CaptureFormat, NoLineIsLongerThanItMayBe) {
  for (const bool json : {false, true}) {
    for (const std::string& unit :
         {std::string("z"), std::string("\x01"), std::string("\xc3\xa4")}) {
      std::string line;
      while (line.size() < 10'000) {
        line += unit;
      }
      std::string out = text_of(json, 4096, {line, End::kWhole});
      std::size_t lines = 0;
      while (!out.empty()) {
        const std::size_t end = out.find('\n');
        ASSERT_NE(end, std::string::npos);
        EXPECT_LE(end + 1, 4096U);
        const bool more = out.substr(0, end).find("more") != std::string::npos;
        out.erase(0, end + 1);
        EXPECT_EQ(more, !out.empty());
        ++lines;
      }
      EXPECT_GE(lines, 3U);
    }
  }
}

TEST(CaptureTail, KeepsTheLastOnes) {
  Tail tail;
  EXPECT_EQ(tail.message(), "");
  for (int i = 0; i < 120; ++i) {
    tail.add(i % 2 == 0 ? Stream::kOut : Stream::kError, std::to_string(i));
  }
  std::string expected;
  for (int i = 120 - kTailLines; i < 120; ++i) {
    expected += (i % 2 == 0 ? "\nout=" : "\nerr=") + std::to_string(i);
  }
  EXPECT_EQ(tail.message(), expected);
  tail.add(Stream::kOut, std::string(5000, 'x'));
  EXPECT_TRUE(tail.message().ends_with("\nout=" + std::string(kMostTailLine, 'x')));
}

}  // namespace
}  // namespace einhorn::capture
