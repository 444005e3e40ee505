// Notes of the pool as events of the event stream (docs/events.md).
//
// Every alternative of pool::Note has one function in note_events.cpp, which gives its event's name
// and writes its fields; a note without one does not compile. To add a note: that function, and a
// row in docs/events.md, which a test holds against what the function writes.
#pragma once

#include <functional>
#include <string_view>

#include "pool/event.h"
#include "wire/json_line.h"

namespace einhorn::wire {

using PidOfWorker = std::function<Pid(WorkerId)>;

// Of the event's line. No field is called "n", "at" or "event": those are the stream's.
class EventFields {
 public:
  EventFields(JsonLine& line, const PidOfWorker& pid_of) : line_(line), pid_of_(pid_of) {}

  [[nodiscard]] JsonLine& line() { return line_; }
  // Its slot, epoch and (once it has one) pid.
  EventFields& worker(WorkerId worker);
  // Their epochs.
  EventFields& workers(std::string_view key, const std::vector<WorkerId>& workers);
  template <typename T>
  EventFields& field(std::string_view key, const T& value) {
    line_.field(key, value);
    return *this;
  }
  // Only if there is something to say.
  EventFields& unless_empty(std::string_view key, std::string_view text);
  EventFields& signal(std::string_view key, int signal);
  EventFields& list(std::string_view key, const std::vector<std::string>& texts);

 private:
  JsonLine& line_;
  const PidOfWorker& pid_of_;
};

[[nodiscard]] std::string_view event_name(const pool::Note& note);
void write_event(EventFields& fields, const pool::Note& note);

// How a worker counts as ready, as it is written everywhere: timer, manual, notify, listen.
std::string_view ack_mode_name(pool::AckMode mode);

}  // namespace einhorn::wire
