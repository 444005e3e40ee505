// What workers write, as it is captured: cut into lines and written down in both forms.
#include <algorithm>
#include <string>
#include <string_view>

#include "capture/format.h"
#include "capture/line_cutter.h"
#include "capture/tail.h"
#include "fuzz.h"
#include "wire/json.h"

namespace einhorn::fuzz {
namespace {

using capture::Line;

constexpr std::size_t kLeastMost = 512;  // of a written line, as of the smallest pipe

// Every line of what was written is one, not too long, and can be read again.
void holds_written(const std::string& written, bool json, std::size_t most, const Line& line) {
  holds(!written.empty() && written.back() == '\n', "what is written ends with a newline");
  std::string_view rest = written;
  std::string text;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::string_view one = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    holds(one.size() < most, "a written line has room where it goes");
    if (json) {
      holds(wire::parse_json(one).has_value(), "a written line is JSON", one);
    } else {
      text += one.substr(std::min(one.find("] ") + 2, one.size()));
    }
  }
  holds(json || text == line.text, "text is passed on byte by byte", line.text);
}

}  // namespace

void run(std::string_view input) {
  Choices choices(input);
  const bool json = choices.flag();
  const std::size_t most_left = choices.word();
  const std::size_t most = kLeastMost + choices.word();
  const std::size_t piece = std::size_t{choices.word()} + 1;
  const std::uint8_t take_every = choices.byte();
  const int times = 1 + choices.below(20);
  std::string all;
  const std::string_view once = choices.rest();
  for (int i = 0; i < times; ++i) {
    all += once;
  }

  capture::Format format(json, most);
  const capture::Author author{4711, 2, 8, 3};
  capture::LineCutter cutter;
  capture::Tail tail;
  std::string joined;
  const auto sink = [&](const Line& line) {
    holds(line.text.size() <= capture::kMostLine, "a line has a limit");
    holds(line.text.find('\n') == std::string_view::npos, "a line is one line");
    joined += line.text;
    joined += line.end == Line::End::kWhole ? "\n" : "";
    tail.add(capture::Stream::kError, line.text);
    std::string written;
    format.line(written, WallTime{}, author, capture::Stream::kOut, line);
    holds_written(written, json, most, line);
  };
  std::size_t begin = 0;
  std::size_t turn = 0;
  for (std::size_t end = 0; end < all.size();) {
    end = std::min(end + piece, all.size());
    const std::string_view shown = std::string_view(all).substr(begin, end - begin);
    const bool take = end == all.size() || (take_every > 0 && ++turn % take_every == 0);
    const std::size_t done = cutter.cut(shown, most_left, take, sink);
    holds(done <= shown.size() && (!take || done == shown.size()), "no byte is taken twice");
    begin += done;
  }
  cutter.finish(sink);
  holds(joined == all, "no byte is lost");
  holds(tail.message().size() <= capture::kTailLines * (capture::kMostTailLine + 5),
        "the last lines have a limit");
}

}  // namespace einhorn::fuzz
