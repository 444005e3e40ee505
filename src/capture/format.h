// How a captured line is written. Pure.
//
//   2026-11-29T14:38:07.123Z [WORKER 4711 index=2 version=3 stdout] text
//   {"time":"2026-11-29T14:38:07.123Z","worker":4711,"index":2,"version":3,"stream":"stdout",
//    "line":"text"}
//
// Text is passed on byte by byte; in JSON what is no UTF-8 becomes U+FFFD. A line that goes on in
// the next one says `more`, one whose writer went away in the middle of it `unfinished`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/instant.h"
#include "capture/line_cutter.h"

namespace einhorn::capture {

enum class Stream { kOut, kError };
[[nodiscard]] std::string_view name(Stream stream);  // "stdout", "stderr"

struct Author {
  std::int32_t pid = 0;  // 0: not known any more
  std::uint32_t index = 0;
  std::uint64_t epoch = 0;
  std::uint64_t version = 0;
};

class Format {
 public:
  // `most`: bytes that a line may have as it is written, its newline included; longer ones are
  // written in several, each as one that goes on.
  Format(bool json, std::size_t most) : json_(json), most_(most) {}

  void line(std::string& out, WallTime time, const Author& author, Stream stream, const Line& line);
  // What we have to say about a worker's output ourselves.
  void remark(std::string& out, WallTime time, const Author& author, std::string_view text) const;

 private:
  [[nodiscard]] std::string head(WallTime time, const Author& author, std::string_view stream,
                                 std::string_view mark) const;

  const std::string& usual_head(WallTime time, const Author& author, Stream stream);

  bool json_;
  std::size_t most_;
  // The head of the last whole line: lines that are read together have the same one.
  std::string head_;
  WallTime head_time_;
  std::uint64_t head_epoch_ = 0;
  Stream head_stream_ = Stream::kOut;
};

}  // namespace einhorn::capture
