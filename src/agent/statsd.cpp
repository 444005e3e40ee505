#include "agent/statsd.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>

#include "agent/listen.h"

namespace einhorn::agent {
namespace {

constexpr std::size_t kMostDatagram = 1432;  // fits into one packet everywhere
constexpr Duration kGathered = std::chrono::milliseconds{100};

// Without what separates one part from another.
std::string clean(std::string_view text, bool dots) {
  std::string out;
  for (const char letter : text) {
    const bool bad = letter == ':' || letter == '|' || letter == '@' || letter == '#' ||
                     letter == ',' || letter == '\n' || letter == ' ' || (dots && letter == '.');
    out += bad ? '_' : letter;
  }
  return out;
}

std::string text_of_number(double value) {
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::fixed, 3);
  std::string text(buffer.data(), end.ptr);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) {
    text.pop_back();
  }
  return text;
}

std::string reason_of(const WorkerView& worker) { return worker.crashed() ? "crashed" : "stopped"; }

}  // namespace

Statsd::Statsd(Loop& loop, StatsdOptions options, const Fleet& fleet,
               std::function<void(std::string)> warn)
    : loop_(loop), options_(std::move(options)), fleet_(fleet), warn_(std::move(warn)) {
  loop_.after(options_.interval, [this] { tick(); });
}

void Statsd::add(const PoolModel& pool, std::string_view name, const std::string& value,
                 std::string_view type, const std::vector<Tag>& tags) {
  std::string line = options_.prefix + ".";
  if (!options_.dog) {
    line += clean(pool.name(), true) + ".";
  }
  line += name;
  if (!options_.dog) {
    for (const Tag& tag : tags) {
      line += "." + clean(tag.value, true);
    }
  }
  line += ":" + value + "|";
  line += type;
  if (options_.dog) {
    line += "|#pool:" + clean(pool.name(), false);
    for (const Tag& tag : tags) {
      line += "," + tag.name + ":" + clean(tag.value, false);
    }
    for (const std::string& tag : options_.tags) {
      line += "," + tag;
    }
  }
  if (!datagram_.empty() && datagram_.size() + line.size() + 1 > kMostDatagram) {
    send();
  }
  datagram_ += (datagram_.empty() ? "" : "\n") + line;
  if (!flush_planned_) {
    flush_planned_ = true;
    loop_.after(kGathered, [this] {
      flush_planned_ = false;
      send();
    });
  }
}

void Statsd::counter(const PoolModel& pool, std::string_view name, std::uint64_t count,
                     const std::vector<Tag>& tags) {
  add(pool, name, std::to_string(count), "c", tags);
}

void Statsd::gauge(const PoolModel& pool, std::string_view name, double value) {
  add(pool, name, text_of_number(value), "g", {});
}

void Statsd::timer(const PoolModel& pool, std::string_view name, double seconds,
                   const std::vector<Tag>& tags) {
  add(pool, name, text_of_number(seconds * 1000), "ms", tags);
}

void Statsd::send() {
  if (datagram_.empty()) {
    return;
  }
  const std::string datagram = std::exchange(datagram_, {});
  if (!fd_) {
    Result<os::UniqueFd> fd = datagrams_to(options_.address);
    if (!fd) {
      ++dropped_;
      if (!std::exchange(warned_, true)) {
        warn_("statsd: " + fd.error().message() + "; trying again with each datagram");
      }
      return;
    }
    fd_ = std::move(*fd);
  }
  if (::send(fd_.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL) >= 0) {
    warned_ = false;
    return;
  }
  ++dropped_;
  if (errno != EAGAIN && errno != ENOBUFS) {
    const Error error{errno, "send to " + options_.address, ""};
    if (!std::exchange(warned_, true)) {
      warn_("statsd: " + error.message());
    }
    fd_.reset();  // a unix socket that was made again has to be connected to again
  }
}

void Statsd::on_line(const Incoming& incoming) {
  const PoolModel& pool = incoming.pool;
  const std::string_view name = incoming.name;
  const wire::Value& event = incoming.event;
  if (name == "spawned") {
    counter(pool, "worker.spawned", 1);
  } else if (name == "spawn_failed") {
    counter(pool, "worker.spawn_failed", 1);
  } else if (name == "ready") {
    timer(pool, "worker.ack_time", real_of(event, "after"));
  } else if (name == "ack_missed") {
    counter(pool, "worker.ack_missed", 1);
  } else if (name == "exited") {
    if (const WorkerView* ended = pool.just_ended()) {
      counter(pool, "worker.exited", 1, {{"reason", reason_of(*ended)}});
      timer(pool, "worker.life", real_of(event, "lived"), {{"reason", reason_of(*ended)}});
    }
  } else if (name == "upgrade_started") {
    counter(pool, "upgrade.started", 1);
  } else if (name == "upgraded" || name == "rolled_back" || name == "upgrade_failed") {
    counter(pool, "upgrade." + std::string(name == "upgrade_failed" ? "failed" : name), 1);
    if (pool.upgrade() && pool.upgrade()->started_at > 0) {
      timer(pool, "upgrade.time", pool.upgrade()->ended_at - pool.upgrade()->started_at,
            {{"outcome", pool.upgrade()->outcome}});
    }
  } else if (name == "command") {
    counter(pool, "command", 1);
  } else if (name == "master_started") {
    counter(pool, "master.started", 1, {{"how", text_of(event, "how")}});
  }
}

void Statsd::tick() {
  for (const auto& [name, feed] : fleet_.feeds()) {
    const PoolModel& pool = feed->model();
    gauge(pool, "up", pool.connected() ? 1 : 0);
    if (!pool.connected()) {
      continue;
    }
    gauge(pool, "workers.wanted", static_cast<double>(pool.number()));
    gauge(pool, "workers.ready", static_cast<double>(pool.ready()));
    gauge(pool, "workers.alive", static_cast<double>(pool.workers().size()));
    gauge(pool, "version", static_cast<double>(pool.version()));
    if (!pool.samples().empty()) {
      const PoolSample& sample = pool.samples().back();
      gauge(pool, "workers.memory_bytes", static_cast<double>(sample.rss));
      gauge(pool, "workers.cpu_percent", sample.cpu_percent);
      gauge(pool, "accept_queue", static_cast<double>(sample.waiting));
    }
  }
  send();
  loop_.after(options_.interval, [this] { tick(); });
}

}  // namespace einhorn::agent
