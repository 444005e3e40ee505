// What a worker says on NOTIFY_SOCKET: datagrams of KEY=VALUE lines, as sd_notify(3) sends them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace einhorn::wire {

// One datagram. However often a thing is said in it, it counts once; of several statuses the last.
struct Notification {
  bool ready = false;  // READY=1
  bool alive = false;  // WATCHDOG=1
  bool hung = false;   // WATCHDOG=trigger: it wants to be taken for hung
  // STATUS=..., fit to be shown: UTF-8 without control characters (`?` stands for each) and at most
  // limits::kMaxStatusBytes long.
  std::optional<std::string> status = {};
};

// Never fails: what is not known is ignored.
[[nodiscard]] Notification parse_notification(std::string_view datagram);

}  // namespace einhorn::wire
