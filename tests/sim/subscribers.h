// Clients of the event stream: some read all, some slowly, some not at all, some vanish.
//
// What must hold of every line that arrives (`numbered`):
//   a stream begins with `snapshot` or `resumed`, and then numbers follow each other without a gap,
//   also over hand-offs; only after a master was killed half a line may stand there, and then a new
//   start comes by itself
//   one number is one event: whoever hears of it hears the same line
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "sim/files.h"
#include "sim/workers.h"
#include "sim/world.h"

namespace einhorn::sim {

class Subscribers {
 public:
  Subscribers(World& world, Workers& workers) : world_(world), workers_(workers) {}

  void arrive();
  void on_master_killed();
  void clear();

 private:
  struct Subscriber {
    std::uint64_t number = 0;
    Pid pid = 0;
    std::shared_ptr<Stream> stream;
    std::string outbox;
    std::string inbox;
    std::optional<std::uint64_t> last;
    std::string name;      // of the stream
    bool ignored = false;  // nothing can be said of what it hears
    int may_be_torn = 0;   // lines: so many masters were killed
    bool silent = false;   // reads nothing
    Duration pause{};
    Instant leaves_at;
  };
  using SubscriberPtr = std::shared_ptr<Subscriber>;

  static constexpr std::size_t kMost = 8;
  static constexpr std::size_t kMostRemembered = 5000;

  void plan(const SubscriberPtr& subscriber);
  void step(const SubscriberPtr& subscriber);
  void on_line(Subscriber& subscriber, const std::string& line);
  void on_number(Subscriber& subscriber, std::uint64_t number, const std::string& line);
  void leave(const SubscriberPtr& subscriber);

  World& world_;
  Workers& workers_;
  std::map<std::uint64_t, SubscriberPtr> subscribers_;
  std::map<std::uint64_t, std::string> heard_;  // by number: one pool's life is one stream
  std::uint64_t next_number_ = 1;
  std::string last_name_;
  std::uint64_t last_heard_ = 0;
};

}  // namespace einhorn::sim
