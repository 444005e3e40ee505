#include "client/feed.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "client/connection.h"
#include "os/descriptors.h"
#include "wire/json.h"
#include "wire/message.h"
#include "wire/yaml.h"

namespace einhorn::client {
namespace {

constexpr Duration kFirstDelay = std::chrono::milliseconds{50};
constexpr Duration kMostDelay = std::chrono::seconds{5};
constexpr std::size_t kMostLineBytes = 64u << 20u;

Result<os::UniqueFd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error{ENAMETOOLONG, "connect " + path, ""};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Error{errno, "create a socket", ""};
  }
  // A unix socket connects at once or not at all.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error{errno, "connect " + path, ""};
  }
  if (const os::Peer peer = os::peer_of(fd.get()); !client::commands(peer)) {
    return Error{EPERM, "connect " + path,
                 "the master there is user " + std::to_string(peer.uid) + "'s"};
  }
  return fd;
}

// What a stream may say at once: the snapshot of a pool of any size.
wire::YamlLimits stream_limits() {
  wire::YamlLimits limits;
  limits.nodes = 16u << 20u;
  limits.scalar_bytes = kMostLineBytes;
  return limits;
}

}  // namespace

Feed::Feed(Loop& loop, std::string name, std::string path, Duration sample_interval, Hooks hooks)
    : loop_(loop),
      model_(std::move(name), std::move(path)),
      sample_interval_(sample_interval),
      hooks_(std::move(hooks)),
      lost_at_(loop.now()) {}

Feed::~Feed() {
  if (fd_) {
    loop_.forget(fd_.get());
  }
  loop_.cancel(retry_);
}

void Feed::start() { connect(); }

void Feed::begin_after(std::string stream, std::uint64_t number) {
  stream_ = std::move(stream);
  since_ = number;
  has_since_ = true;
}

Duration Feed::away(Instant now) const { return fd_ ? Duration{0} : now - lost_at_; }

std::string Feed::request() const {
  wire::Map document;
  wire::put(document, "command", "subscribe");
  wire::put(document, "id", 1);
  if (sample_interval_ > Duration{0}) {
    wire::put(document, "sample", to_seconds(sample_interval_));
  }
  std::string before;
  if (model_.known()) {
    wire::put(document, "since", model_.last());
    wire::put(document, "stream", model_.stream());
  } else if (has_since_) {
    // What an earlier life of ours has not kept yet; and then a start, since a model without one
    // can't go on from anywhere.
    wire::Map first = document;
    wire::put(first, "since", since_);
    wire::put(first, "stream", stream_);
    before = wire::encode_json(first) + "\n";
  }
  return before + wire::encode_json(document) + "\n";
}

void Feed::connect() {
  Result<os::UniqueFd> fd = connect_to(model_.path());
  if (!fd) {
    lose(fd.error().message());
    return;
  }
  fd_ = std::move(*fd);
  buffer_.clear();
  answered_ = false;
  unsent_ = request();
  loop_.watch(fd_.get(), true, true, [this](Loop::Ready ready) { on_ready(ready); });
}

void Feed::lose(const std::string& why) {
  if (fd_) {
    loop_.forget(fd_.get());
    fd_.reset();
    lost_at_ = loop_.now();
  }
  const bool was = model_.connected();
  const bool news = was || model_.error() != why;
  model_.set_connected(false, why);
  if (news) {
    hooks_.on_connection(model_);
  }
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  retry_ = loop_.after(delay_, [this] { connect(); });
}

void Feed::on_ready(Loop::Ready ready) {
  if (ready.writable && !unsent_.empty()) {
    const ssize_t sent = ::send(fd_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      unsent_.erase(0, static_cast<std::size_t>(sent));
    }
    if (unsent_.empty()) {
      loop_.change(fd_.get(), true, false);
    }
  }
  if (!ready.readable) {
    return;
  }
  std::array<char, 256 * 1024> chunk;
  const ssize_t got = ::recv(fd_.get(), chunk.data(), chunk.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (got <= 0) {
    lose("the master closed the connection");
    return;
  }
  buffer_.append(chunk.data(), static_cast<std::size_t>(got));
  std::size_t at = 0;
  for (std::size_t end = 0; fd_ && (end = buffer_.find('\n', at)) != std::string::npos;
       at = end + 1) {
    on_line(std::string_view(buffer_).substr(at, end - at));
  }
  buffer_.erase(0, std::min(at, buffer_.size()));
  if (buffer_.capacity() > (1u << 20u) && buffer_.size() < (64u << 10u)) {
    buffer_.shrink_to_fit();  // a snapshot was long, the next lines are not
  }
  if (buffer_.size() > kMostLineBytes) {
    lose("a line of the stream is too long");
  }
}

void Feed::on_line(std::string_view line) {
  if (line.empty()) {
    return;
  }
  static const wire::YamlLimits kLimits = stream_limits();
  const Result<wire::Value> event = wire::parse_json(line, kLimits);
  if (!event || event->as_map() == nullptr) {
    // Cut off at the death of a master; a new start follows.
    hooks_.warn(model_.name() + ": a line of the stream can't be read");
    return;
  }
  if (!answered_) {
    answered_ = true;
    if (!flag_of(*event, "wait")) {
      const std::string message = text_of(*event, "message");
      lose(message.starts_with("Unrecognized command")
               ? "the master there knows no event stream (Ruby's Einhorn, or an older one)"
               : message.substr(0, message.find('\n')));
    }
    return;
  }
  const std::string name = text_of(*event, "event");
  if (name.empty()) {
    return;  // the answer to a second request
  }
  if (!model_.connected() && (name == "snapshot" || name == "resumed")) {
    model_.take(*event, line);
    delay_ = Duration{0};
    ever_ = true;
    model_.set_connected(true, "");
    hooks_.on_connection(model_);
  } else {
    model_.take(*event, line);
  }
  hooks_.on_line({model_, *event, name, line});
  if (name == "dropped") {
    hooks_.warn(model_.name() + ": the master let us go: " + text_of(*event, "reason"));
  }
}

}  // namespace einhorn::client
