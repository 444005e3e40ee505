// Cuts what a worker writes into lines. Pure: bytes in, lines out.
//
// It is shown what lies in a pipe and says how much of that can be taken out. A line that has not
// ended yet is left there, so that it survives us, unless it is longer than `most_left`: then, and
// when told to (`take`), it is taken in and waits here. A line longer than kMostLine comes out in
// pieces.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace einhorn::capture {

inline constexpr std::size_t kMostLine = 16 * 1024;

struct Line {
  enum class End {
    kWhole,
    kMore,        // the same line goes on in the next one
    kUnfinished,  // nothing more came: its writer is gone
  };
  std::string_view text;  // without the newline
  End end = End::kWhole;
};

class LineCutter {
 public:
  using Sink = std::function<void(const Line&)>;

  // How many of these bytes have been dealt with. The next call begins with the others.
  // `take`: leave nothing.
  std::size_t cut(std::string_view bytes, std::size_t most_left, bool take, const Sink& sink);
  // There will be no more.
  void finish(const Sink& sink);
  // Something was taken in that is no whole line.
  [[nodiscard]] bool holds() const { return !held_.empty(); }

 private:
  void add(std::string_view bytes, const Sink& sink);

  std::string held_;  // the beginning of a line
};

}  // namespace einhorn::capture
