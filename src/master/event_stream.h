// The event stream: what happens in the pool, one JSON line an event, to whoever has said
// `subscribe` (docs/events.md).
//
// Events are numbered over the pool's whole life, whoever listens: the number lies in the page that
// a master shares with its guard, so it goes on after a kill -9 and over a hand-off, and no number
// is given twice. Lines are made only while somebody listens, or did a moment ago; the last ones
// are kept, so that a client that was away for a moment gets what it missed.
//
// Nobody is waited for. A client that lets more than limits::kMaxEventBacklog pile up is told so in
// a last line and let go.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/instant.h"
#include "master/command_server.h"
#include "master/log.h"
#include "pool/event.h"
#include "wire/note_events.h"

namespace einhorn::master {

class EventStream {
 public:
  // What it shows of the pool. All are asked only while somebody listens.
  struct Source {
    std::function<std::string()> state;           // `state json`
    std::function<void(wire::JsonLine&)> sample;  // the fields of a sample
    std::function<Pid(WorkerId)> pid_of;
    std::function<void(std::uint64_t)> number_noted;  // before anybody hears of that number
  };

  // What a client asked for.
  struct Wish {
    std::optional<std::uint64_t> since;  // the last number that it has
    std::string stream;                  // of which stream; "" not said
    Duration interval{0};                // of samples; zero: none
  };

  EventStream(CommandServer& server, Log& log, Source source, std::uint64_t number);

  // What one stream calls itself: of this pool's life and no other's.
  void set_name(std::string name) { name_ = std::move(name); }
  [[nodiscard]] const std::string& name() const { return name_; }
  // The number of the last event.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  void set_time(Instant now, WallTime wall);

  // Clients of the last master. `restarted`: it was killed, so what they had to read may be lost:
  // they get a new start.
  void adopt(bool restarted);
  // Whether one more can be taken.
  [[nodiscard]] bool has_room() const;
  // From here on that client gets events; the reply to its request has been given.
  void subscribe(Connection& connection, const Wish& wish);

  void add(const pool::Note& note);
  // Any other event; `write` gives its fields.
  void add(std::string_view name, const std::function<void(wire::EventFields&)>& write);
  // Sends what was added since the last time. After the snapshot was written.
  void flush();

  [[nodiscard]] std::optional<Instant> next_deadline() const;
  // Samples, and clients whose last line has waited for long enough.
  void turn();

 private:
  struct Subscriber {
    Duration interval{0};
    Instant sample_at;
    std::size_t allowance = 0;  // unsent bytes that are still all right
  };
  struct Kept {
    std::uint64_t number;
    std::string line;
  };

  [[nodiscard]] bool wanted() const;
  [[nodiscard]] wire::JsonLine begin(std::string_view name) const;
  [[nodiscard]] wire::JsonLine begin_numbered(std::string_view name);
  void keep(std::string line);
  void send(std::uint64_t id, std::string_view bytes);
  void give_start(std::uint64_t id, std::string_view bytes);
  void send_start(std::uint64_t id, std::optional<std::uint64_t> since, bool same_stream);
  void drop_slow(std::uint64_t id, Connection& connection);

  CommandServer& server_;
  Log& log_;
  Source source_;
  wire::PidOfWorker pid_of_;
  std::string name_;
  std::uint64_t number_;
  Instant now_;
  WallTime wall_;
  std::map<std::uint64_t, Subscriber> subscribers_;  // by connection
  std::map<std::uint64_t, Instant> leaving_;         // told that they are too slow
  std::optional<Instant> last_left_;
  std::deque<Kept> kept_;
  std::size_t kept_bytes_ = 0;
  std::string unsent_;
};

}  // namespace einhorn::master
