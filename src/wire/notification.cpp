#include "wire/notification.h"

#include <algorithm>
#include <cstddef>

#include "base/limits.h"
#include "wire/text.h"

namespace einhorn::wire {
namespace {

constexpr std::string_view kStatus = "STATUS=";

// U+0080 to U+009F are control characters too: terminals act on them.
bool is_control(std::uint32_t code) { return code < 0x20 || (code >= 0x7f && code < 0xa0); }

std::string presentable(std::string_view bytes) {
  const std::string text = text::to_utf8(bytes.substr(0, limits::kMaxStatusBytes));
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint point = text::decode_utf8(text, at);
    const std::string_view letter = std::string_view(text).substr(at, point.bytes);
    const std::string_view shown = is_control(point.code) ? "?" : letter;
    if (out.size() + shown.size() > limits::kMaxStatusBytes) {
      break;
    }
    out += shown;
    at += point.bytes;
  }
  return out;
}

}  // namespace

Notification parse_notification(std::string_view datagram) {
  Notification said;
  std::optional<std::string_view> status;
  while (!datagram.empty()) {
    const std::size_t end = std::min(datagram.find('\n'), datagram.size());
    const std::string_view line = datagram.substr(0, end);
    datagram.remove_prefix(std::min(end + 1, datagram.size()));
    said.ready = said.ready || line == "READY=1";
    said.alive = said.alive || line == "WATCHDOG=1";
    said.hung = said.hung || line == "WATCHDOG=trigger";
    if (line.starts_with(kStatus)) {
      status = line.substr(kStatus.size());
    }
  }
  if (status) {
    said.status = presentable(*status);
  }
  return said;
}

}  // namespace einhorn::wire
