// The steps of a pool's life at which a command may run (docs/hooks.md).
//
// The pool waits for two of them: a worker is started when its kBeforeStart is over, and gets its
// stop signal when its kBeforeStop is. All others are the master's alone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace einhorn::pool {

// Values are kept in snapshots: a new one goes to the end.
enum class Hook : std::uint8_t {
  kNone,
  kBeforeStart,
  kAfterAck,
  kBeforeStop,
  kAfterExit,
  kBeforeUpgrade,
  kAfterUpgrade,
};
inline constexpr std::array kHooks = {Hook::kBeforeStart,   Hook::kAfterAck,
                                      Hook::kBeforeStop,    Hook::kAfterExit,
                                      Hook::kBeforeUpgrade, Hook::kAfterUpgrade};

// "before-start": the same word in options, log, state and document; "" for none.
[[nodiscard]] constexpr std::string_view name(Hook hook) {
  switch (hook) {
    case Hook::kNone:
      return "";
    case Hook::kBeforeStart:
      return "before-start";
    case Hook::kAfterAck:
      return "after-ack";
    case Hook::kBeforeStop:
      return "before-stop";
    case Hook::kAfterExit:
      return "after-exit";
    case Hook::kBeforeUpgrade:
      return "before-upgrade";
    case Hook::kAfterUpgrade:
      return "after-upgrade";
  }
  return "";
}

}  // namespace einhorn::pool
