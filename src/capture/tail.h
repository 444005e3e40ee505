// The last lines of one worker. Pure, bounded: kTailLines lines of kMostTailLine bytes.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "capture/format.h"
#include "capture/reader.h"

namespace einhorn::capture {

inline constexpr std::size_t kMostTailLine = 1000;

class Tail {
 public:
  void add(Stream stream, std::string_view line) {
    auto& [of, text] = lines_.at(next_);
    of = stream;
    text.assign(line.substr(0, kMostTailLine));
    next_ = (next_ + 1) % lines_.size();
    count_ += count_ < lines_.size() ? 1 : 0;
  }
  // "out=TEXT" and "err=TEXT", each behind a newline, oldest first.
  [[nodiscard]] std::string message() const {
    std::string message;
    for (std::size_t i = lines_.size() - count_; i < lines_.size(); ++i) {
      const auto& [stream, text] = lines_.at((next_ + i) % lines_.size());
      message += stream == Stream::kOut ? "\nout=" : "\nerr=";
      message += text;
    }
    return message;
  }

 private:
  std::array<std::pair<Stream, std::string>, kTailLines> lines_;
  std::size_t next_ = 0;
  std::size_t count_ = 0;
};

}  // namespace einhorn::capture
