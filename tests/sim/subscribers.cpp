#include "sim/subscribers.h"

#include <algorithm>

#include "wire/json.h"

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

std::optional<std::uint64_t> number_in(const wire::Value& line, std::string_view key) {
  const wire::Value* value = line.find(key);
  const std::int64_t* number = value != nullptr ? value->as_integer() : nullptr;
  return number != nullptr ? std::optional(static_cast<std::uint64_t>(*number)) : std::nullopt;
}

std::string text_in(const wire::Value& line, std::string_view key) {
  const wire::Value* value = line.find(key);
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : "";
}

}  // namespace

void Subscribers::arrive() {
  if (subscribers_.size() >= kMost) {
    return;
  }
  Random& random = world_.random;
  const ProcessPtr process = world_.start_process(ProcessKind::kClient, 1);
  const std::size_t capacity =
      static_cast<std::size_t>(random.chance(300) ? random.between(64, 600) : 65536);
  std::shared_ptr<Stream> stream = workers_.connect(process->pid, capacity);
  if (stream == nullptr) {
    world_.end(process, {1, 0});
    return;
  }
  auto subscriber = std::make_shared<Subscriber>();
  subscriber->number = next_number_++;
  subscriber->pid = process->pid;
  subscriber->stream = std::move(stream);
  subscriber->silent = random.chance(150);
  subscriber->pause = random.skewed(milliseconds{1}, seconds{5});
  subscriber->leaves_at = world_.now() + random.skewed(milliseconds{1}, minutes{4});
  subscriber->outbox = "{\"command\": \"subscribe\", \"id\": 1";
  if (random.chance(300)) {
    subscriber->outbox += ", \"sample\": " + std::to_string(random.between(1, 20));
  }
  if (!last_name_.empty() && random.chance(400)) {
    const std::uint64_t back = random.below(20);
    subscriber->last = last_heard_ - std::min(back, last_heard_);
    subscriber->name = last_name_;
    subscriber->outbox += ", \"since\": " + std::to_string(*subscriber->last) + ", \"stream\": \"" +
                          last_name_ + "\"";
  }
  subscriber->outbox += "}\n";
  subscribers_[subscriber->number] = subscriber;
  world_.note("subscriber", std::to_string(subscriber->number) + " says " + subscriber->outbox);
  plan(subscriber);
}

void Subscribers::plan(const SubscriberPtr& subscriber) {
  world_.after(subscriber->pause, [this, subscriber] { step(subscriber); });
}

void Subscribers::step(const SubscriberPtr& subscriber) {
  if (!subscribers_.contains(subscriber->number)) {
    return;
  }
  if (!subscriber->outbox.empty()) {
    const os::Transfer sent = subscriber->stream->write(subscriber->outbox);
    subscriber->outbox.erase(0, sent.bytes);
  }
  while (!subscriber->silent) {
    std::string bytes;
    const os::Transfer got = subscriber->stream->read(4096, bytes);
    if (got.kind == Kind::kClosed) {
      leave(subscriber);
      return;
    }
    if (got.kind == Kind::kWouldBlock) {
      break;
    }
    subscriber->inbox += bytes;
  }
  std::size_t end = 0;
  while ((end = subscriber->inbox.find('\n')) != std::string::npos) {
    const std::string line = subscriber->inbox.substr(0, end);
    subscriber->inbox.erase(0, end + 1);
    on_line(*subscriber, line);
  }
  if (world_.now() >= subscriber->leaves_at) {
    leave(subscriber);
    return;
  }
  plan(subscriber);
}

void Subscribers::on_line(Subscriber& subscriber, const std::string& line) {
  // What a master said of which nobody who lives has heard is numbered again.
  if (line.empty() || subscriber.ignored || world_.successors_lost > 0) {
    return;
  }
  const std::string who = "subscriber " + std::to_string(subscriber.number);
  wire::YamlLimits limits;
  limits.nodes = std::size_t{1} << 20U;
  const Result<wire::Value> event = wire::parse_json(line, limits);
  if (!event || event->as_map() == nullptr) {
    world_.expect(subscriber.may_be_torn-- > 0, "numbered",
                  who + " hears half a line, and no master was killed: " + line.substr(0, 200));
    return;
  }
  const std::string name = text_in(*event, "event");
  if (name == "snapshot" || name == "resumed") {
    subscriber.last = number_in(*event, "after");
    subscriber.name = last_name_ = text_in(*event, "stream");
  } else if (const auto number = number_in(*event, "n")) {
    on_number(subscriber, *number, line);
  } else if (name == "sample") {
    world_.expect(number_in(*event, "after") == subscriber.last, "numbered",
                  who + " gets a sample out of its order: " + line.substr(0, 200));
  }
}

void Subscribers::on_number(Subscriber& subscriber, std::uint64_t number, const std::string& line) {
  const std::string who = "subscriber " + std::to_string(subscriber.number);
  world_.expect(subscriber.last && number == *subscriber.last + 1, "numbered",
                who + " was at " + std::to_string(subscriber.last.value_or(0)) + " and hears " +
                    line.substr(0, 200));
  subscriber.last = number;
  last_heard_ = std::max(last_heard_, number);
  const auto [known, added] = heard_.emplace(number, line);
  // What could not be written down may be numbered again, and be heard of when there is room.
  world_.expect(added || known->second == line || world_.snapshots_lost > 0, "numbered",
                "number " + std::to_string(number) + " was " + known->second + " and is " + line);
  if (heard_.size() > kMostRemembered) {
    heard_.erase(heard_.begin());
  }
}

void Subscribers::leave(const SubscriberPtr& subscriber) {
  if (subscribers_.erase(subscriber->number) > 0) {
    subscriber->stream.reset();
    if (const ProcessPtr process = world_.find(subscriber->pid)) {
      world_.end(process, {1, 0});
    }
  }
}

void Subscribers::on_master_killed() {
  for (const auto& [number, subscriber] : subscribers_) {
    ++subscriber->may_be_torn;
    // What was written down may be old: it hears again what it has heard.
    subscriber->ignored = subscriber->ignored || world_.snapshot_lossy;
  }
}

void Subscribers::clear() {
  while (!subscribers_.empty()) {
    const SubscriberPtr subscriber = subscribers_.begin()->second;
    leave(subscriber);
  }
}

}  // namespace einhorn::sim
