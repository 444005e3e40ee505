// What the pool notes, in words: the lines of the log that people and tools read.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "master/log.h"
#include "pool/event.h"

namespace einhorn::master {

using PidOf = std::function<Pid(WorkerId)>;

// "[1, 2, 3]"
[[nodiscard]] std::string list_of_pids(const std::vector<WorkerId>& workers, const PidOf& pid_of);

// "1" for whole seconds, "1.5" otherwise.
[[nodiscard]] std::string seconds_text(Duration duration);

// The lines of one note. Texts that upstream's users match on are upstream's.
[[nodiscard]] std::vector<LogLine> narrate(const pool::Note& note, const PidOf& pid_of,
                                           pool::AckMode ack_mode);

}  // namespace einhorn::master
