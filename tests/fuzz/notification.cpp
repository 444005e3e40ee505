// A datagram on NOTIFY_SOCKET, from a worker or from anything it started.
#include "wire/notification.h"

#include <string>
#include <string_view>

#include "base/limits.h"
#include "fuzz.h"
#include "wire/text.h"

namespace einhorn::fuzz {

void run(std::string_view input) {
  const wire::Notification said = wire::parse_notification(input);
  holds(!said.ready || input.find("READY=1") != std::string_view::npos, "READY=1 was said");
  holds(!said.alive || input.find("WATCHDOG=1") != std::string_view::npos, "WATCHDOG=1 was said");
  if (said.status) {
    holds(said.status->size() <= limits::kMaxStatusBytes, "a status is cut");
    holds(wire::text::is_utf8(*said.status), "a status is text");
    holds(said.status->find('\n') == std::string::npos, "a status is one line");
  }
  // The same again, from what was understood of it.
  std::string again = said.ready ? "READY=1\n" : "";
  again += said.alive ? "WATCHDOG=1\n" : "";
  again += said.status ? "STATUS=" + *said.status : "";
  const wire::Notification second = wire::parse_notification(again);
  holds(second.ready == said.ready && second.alive == said.alive && second.status == said.status,
        "what was understood is understood again", again);
}

}  // namespace einhorn::fuzz
