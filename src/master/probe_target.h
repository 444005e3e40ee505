// Whom a probe asks: what --probe, --probe-address and --probe-command mean for one worker.
//
// A shared socket can't tell which worker answered, so an address has to be a worker's own: it
// names {index}, {N+index} (a number plus the index) or {pid}. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace einhorn::master {

struct ProbeTarget {
  enum class Kind { kNone, kHttp, kTcp, kCommand };
  Kind kind = Kind::kNone;
  std::string address;  // a pattern
  std::string path;     // kHttp
  std::string command;  // kCommand; a pattern
};

// Errors: one line, with the option that is to be changed in front.
[[nodiscard]] Result<ProbeTarget> parse_probe(const std::string& probe, const std::string& address,
                                              const std::string& command);

// The text for one worker. `pid` 0: not known, and {pid} stays.
[[nodiscard]] std::string fill_pattern(std::string_view pattern, Slot index, Pid pid);

}  // namespace einhorn::master
