#include "capture/line_cutter.h"

#include <algorithm>

namespace einhorn::capture {

std::size_t LineCutter::cut(std::string_view bytes, std::size_t most_left, bool take,
                            const Sink& sink) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::string_view rest = bytes.substr(done);
    const std::size_t newline = rest.find('\n');
    if (newline == std::string_view::npos) {
      if (take || rest.size() > most_left) {
        add(rest, sink);
        done = bytes.size();
      }
      break;
    }
    std::string_view line = rest.substr(0, newline);
    done += newline + 1;
    while (held_.size() + line.size() > kMostLine) {
      const std::size_t room = kMostLine - held_.size();
      held_ += line.substr(0, room);
      line.remove_prefix(room);
      sink({held_, Line::End::kMore});
      held_.clear();
    }
    if (held_.empty()) {
      sink({line, Line::End::kWhole});
    } else {
      held_ += line;
      sink({held_, Line::End::kWhole});
      held_.clear();
    }
  }
  return done;
}

// Of a line that has not ended: there is always something left to end it with.
void LineCutter::add(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    if (held_.size() == kMostLine) {
      sink({held_, Line::End::kMore});
      held_.clear();
    }
    const std::size_t part = std::min(kMostLine - held_.size(), bytes.size());
    held_ += bytes.substr(0, part);
    bytes.remove_prefix(part);
  }
}

void LineCutter::finish(const Sink& sink) {
  if (!held_.empty()) {
    sink({held_, Line::End::kUnfinished});
    held_.clear();
  }
}

}  // namespace einhorn::capture
