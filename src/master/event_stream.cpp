#include "master/event_stream.h"

#include <algorithm>
#include <vector>

#include "base/limits.h"

namespace einhorn::master {
namespace {

constexpr Duration kGrace = std::chrono::seconds{10};  // for the last line of a slow client

}  // namespace

EventStream::EventStream(CommandServer& server, Log& log, Source source, std::uint64_t number)
    : server_(server),
      log_(log),
      source_(std::move(source)),
      pid_of_(source_.pid_of),
      number_(number) {}

void EventStream::set_time(Instant now, WallTime wall) {
  now_ = now;
  wall_ = wall;
}

bool EventStream::wanted() const {
  return !subscribers_.empty() || (last_left_ && now_ - *last_left_ < limits::kEventsKeptFor);
}

wire::JsonLine EventStream::begin(std::string_view name) const {
  wire::JsonLine line;
  line.field("event", name).field("at", wall_);
  return line;
}

wire::JsonLine EventStream::begin_numbered(std::string_view name) {
  source_.number_noted(++number_);
  wire::JsonLine line;
  line.field("n", number_).field("event", name).field("at", wall_);
  return line;
}

void EventStream::add(const pool::Note& note) {
  if (!wanted()) {
    source_.number_noted(++number_);
    return;
  }
  wire::JsonLine line = begin_numbered(wire::event_name(note));
  wire::EventFields fields(line, pid_of_);
  wire::write_event(fields, note);
  keep(line.take());
}

void EventStream::add(std::string_view name, const std::function<void(wire::EventFields&)>& write) {
  if (!wanted()) {
    source_.number_noted(++number_);
    return;
  }
  wire::JsonLine line = begin_numbered(name);
  wire::EventFields fields(line, pid_of_);
  write(fields);
  keep(line.take());
}

void EventStream::keep(std::string line) {
  if (!kept_.empty() && kept_.back().number + 1 != number_) {
    kept_.clear();  // there was nobody for a while
    kept_bytes_ = 0;
  }
  if (!subscribers_.empty()) {
    unsent_ += line;
  }
  kept_bytes_ += line.size();
  kept_.push_back({number_, std::move(line)});
  while (kept_bytes_ > limits::kMaxEventsKeptBytes) {
    kept_bytes_ -= kept_.front().line.size();
    kept_.pop_front();
  }
}

void EventStream::flush() {
  if (unsent_.empty()) {
    return;
  }
  const std::string bytes = std::exchange(unsent_, {});
  std::vector<std::uint64_t> ids;
  for (const auto& [id, subscriber] : subscribers_) {
    ids.push_back(id);
  }
  for (const std::uint64_t id : ids) {
    send(id, bytes);
  }
}

void EventStream::send(std::uint64_t id, std::string_view bytes) {
  Connection* connection = server_.find(id);
  const auto found = subscribers_.find(id);
  if (found == subscribers_.end()) {
    return;
  }
  if (connection == nullptr || connection->closing) {
    subscribers_.erase(found);
    last_left_ = now_;
    return;
  }
  if (connection->output.empty()) {
    found->second.allowance = limits::kMaxEventBacklog;
  }
  if (connection->output.size() + bytes.size() > found->second.allowance ||
      !server_.write(*connection, bytes)) {
    drop_slow(id, *connection);
  }
}

void EventStream::drop_slow(std::uint64_t id, Connection& connection) {
  log_.error("subscriber_dropped",
             "[client " + std::to_string(id) + "] does not read its events; closing it");
  subscribers_.erase(id);
  last_left_ = now_;
  wire::JsonLine line = begin("dropped");
  line.field("after", number_)
      .field("reason", "too slow: " + std::to_string(connection.output.size()) +
                           " bytes were not read; subscribe again with `since`");
  if (server_.cut_output(connection, line.take())) {
    leaving_[id] = now_ + kGrace;
  }
}

// With `since`, what came after it if that is still there; a start otherwise.
void EventStream::send_start(std::uint64_t id, std::optional<std::uint64_t> since,
                             bool same_stream) {
  const bool known = same_stream && since && *since <= number_;
  const bool replayed =
      known && (*since == number_ || (!kept_.empty() && kept_.back().number == number_ &&
                                      kept_.front().number <= *since + 1));
  if (replayed) {
    wire::JsonLine line = begin("resumed");
    line.field("after", *since).field("stream", name_).field("number", number_);
    std::string bytes = line.take();
    for (const Kept& each : kept_) {
      if (each.number > *since) {
        bytes += each.line;
      }
    }
    give_start(id, bytes);
    return;
  }
  wire::JsonLine line = begin("snapshot");
  line.field("after", number_).field("stream", name_);
  if (known) {
    line.field("missed", number_ - *since);
  } else if (since) {
    line.null_field("missed");
  } else {
    line.field("missed", 0);
  }
  line.json("state", source_.state());
  give_start(id, line.take());
}

// However long it is: it is what the subscriber has asked for, and all that is unread counts anew.
void EventStream::give_start(std::uint64_t id, std::string_view bytes) {
  Connection* const connection = server_.find(id);
  if (connection == nullptr || connection->closing) {
    return;  // send() finds out
  }
  subscribers_.at(id).allowance =
      limits::kMaxEventBacklog + bytes.size() + connection->output.size();
  if (!server_.write(*connection, bytes)) {
    drop_slow(id, *connection);
  }
}

bool EventStream::has_room() const { return subscribers_.size() < limits::kMaxEventSubscribers; }

void EventStream::subscribe(Connection& connection, const Wish& wish) {
  flush();  // what came before is not for this one
  Subscriber& subscriber = subscribers_[connection.id];
  subscriber.interval = wish.interval;
  subscriber.sample_at = now_;
  connection.events = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(wish.interval).count());
  server_.keep(connection);
  send_start(connection.id, wish.since, wish.stream.empty() || wish.stream == name_);
}

void EventStream::adopt(bool restarted) {
  for (const auto& [id, connection] : server_.connections()) {
    if (connection.events) {
      subscribers_[id] = {std::chrono::milliseconds{*connection.events}, now_,
                          limits::kMaxEventBacklog + connection.output.size()};
    }
  }
  if (!restarted) {
    return;
  }
  std::vector<std::uint64_t> ids;
  for (const auto& [id, subscriber] : subscribers_) {
    ids.push_back(id);
  }
  for (const std::uint64_t id : ids) {
    send(id, "\n");  // behind half a line of the dead one
    if (subscribers_.contains(id)) {
      send_start(id, std::nullopt, true);
    }
  }
}

std::optional<Instant> EventStream::next_deadline() const {
  std::optional<Instant> next;
  for (const auto& [id, subscriber] : subscribers_) {
    if (subscriber.interval > Duration{0} && (!next || subscriber.sample_at < *next)) {
      next = subscriber.sample_at;
    }
  }
  for (const auto& [id, at] : leaving_) {
    if (!next || at < *next) {
      next = at;
    }
  }
  return next;
}

void EventStream::turn() {
  std::erase_if(subscribers_, [this](const auto& entry) {
    if (server_.find(entry.first) != nullptr) {
      return false;
    }
    last_left_ = now_;
    return true;
  });
  std::erase_if(leaving_, [this](const auto& entry) {
    Connection* connection = server_.find(entry.first);
    if (connection != nullptr && entry.second <= now_) {
      server_.close(*connection);
    }
    return connection == nullptr || entry.second <= now_;
  });
  std::string bytes;
  std::vector<std::uint64_t> due;
  for (auto& [id, subscriber] : subscribers_) {
    if (subscriber.interval > Duration{0} && subscriber.sample_at <= now_) {
      subscriber.sample_at += subscriber.interval;
      if (subscriber.sample_at <= now_) {
        subscriber.sample_at = now_ + subscriber.interval;  // late ones are not made up for
      }
      due.push_back(id);
    }
  }
  flush();
  if (!due.empty()) {
    wire::JsonLine line = begin("sample");
    line.field("after", number_);
    source_.sample(line);
    bytes = line.take();
  }
  for (const std::uint64_t id : due) {
    send(id, bytes);
  }
}

}  // namespace einhorn::master
