#include "agent/http_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace einhorn::agent {
namespace {

constexpr Duration kTick = std::chrono::seconds{10};
constexpr Duration kSilent = std::chrono::seconds{60};
constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
    "retry: 1000\n\n";

}  // namespace

HttpServer::HttpServer(Loop& loop, os::UniqueFd listener, Handler handler, StreamChooser chooser)
    : loop_(loop),
      listener_(std::move(listener)),
      handler_(std::move(handler)),
      chooser_(std::move(chooser)) {
  loop_.watch(listener_.get(), true, false, [this](Loop::Ready) { accept(); });
  timer_ = loop_.after(kTick, [this] { tick(); });
}

HttpServer::~HttpServer() {
  loop_.cancel(timer_);
  for (const auto& [id, client] : clients_) {
    loop_.forget(client.fd.get());
  }
  loop_.forget(listener_.get());
}

void HttpServer::accept() {
  for (;;) {
    os::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      return;
    }
    if (clients_.size() >= kMostConnections) {
      continue;  // closed
    }
    const std::uint64_t id = next_id_++;
    const int number = fd.get();
    Client& client = clients_[id];
    client.fd = std::move(fd);
    client.heard_at = loop_.now();
    loop_.watch(number, true, false, [this, id](Loop::Ready ready) { on_client(id, ready); });
  }
}

void HttpServer::on_client(std::uint64_t id, Loop::Ready ready) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) {
    return;
  }
  Client& client = found->second;
  if (ready.writable) {
    flush(client);
    take(client);
  }
  if (ready.readable && !client.dead) {
    read(client);
  }
  sweep();
}

void HttpServer::read(Client& client) {
  if (client.writing && !client.stream) {
    client.dead = true;  // nothing is read from it now, so this is its end
    return;
  }
  std::array<char, 16 * 1024> chunk;
  const ssize_t got = ::recv(client.fd.get(), chunk.data(), chunk.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (got <= 0) {
    client.dead = true;
    return;
  }
  client.heard_at = loop_.now();
  if (client.stream || client.closing) {
    return;  // nothing more is listened to
  }
  client.input.append(chunk.data(), static_cast<std::size_t>(got));
  take(client);
}

// The next request waits until the answer before it is sent.
void HttpServer::take(Client& client) {
  while (!client.closing && !client.stream && !client.dead && !client.writing) {
    int failed = 0;
    const std::optional<HttpRequest> request = client.parser.feed(client.input, failed);
    if (failed != 0) {
      client.output +=
          encode_response({failed, "text/plain; charset=utf-8", "not a request\n"}, false, false);
      client.closing = true;
      flush(client);
      return;
    }
    if (!request) {
      return;
    }
    answer(client, *request);
  }
}

void HttpServer::answer(Client& client, const HttpRequest& request) {
  Stream stream = chooser_(request);
  if (stream.wanted) {
    client.stream = true;
    ++streams_;
    client.pool = std::move(stream.pool);
    client.output += kStreamHead;
    client.output += stream.first;
  } else {
    client.output +=
        encode_response(handler_(request), request.keep_alive, request.method == "HEAD");
    client.closing = !request.keep_alive;
  }
  flush(client);
}

void HttpServer::flush(Client& client) {
  while (!client.output.empty()) {
    const ssize_t sent =
        ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      client.dead = true;
      return;
    }
    if (sent <= 0) {
      break;
    }
    client.output.erase(0, static_cast<std::size_t>(sent));
    client.heard_at = loop_.now();
  }
  if (client.output.empty() && client.closing) {
    client.dead = true;
  } else if (client.writing == client.output.empty()) {
    client.writing = !client.output.empty();
    loop_.change(client.fd.get(), client.stream || !client.writing, client.writing);
  }
}

void HttpServer::sweep() {
  std::erase_if(clients_, [this](auto& entry) {
    if (!entry.second.dead) {
      return false;
    }
    streams_ -= entry.second.stream ? 1 : 0;
    loop_.forget(entry.second.fd.get());
    return true;
  });
}

void HttpServer::send_event(const std::string& pool, std::string_view name, std::string_view data) {
  if (streams_ == 0) {
    return;
  }
  std::string text = "event: ";
  text += name;
  text += "\ndata: ";
  text += data;
  text += "\n\n";
  bool died = false;
  for (auto& [id, client] : clients_) {
    if (!client.stream || client.dead || (!client.pool.empty() && client.pool != pool)) {
      continue;
    }
    client.output += text;
    if (client.output.size() > kMostUnsent) {
      client.dead = true;
    } else if (!client.writing) {
      flush(client);
    }
    died = died || client.dead;
  }
  if (died) {
    sweep();
  }
}

// Streams get a sign of life, so that one whose reader has vanished is found out.
void HttpServer::tick() {
  for (auto& [id, client] : clients_) {
    if (client.stream) {
      client.output += "event: beat\ndata: {}\n\n";
      client.dead = client.dead || client.output.size() > kMostUnsent;
      if (!client.dead && !client.writing) {
        flush(client);
      }
    } else if (loop_.now() - client.heard_at > kSilent) {
      client.dead = true;
    }
  }
  sweep();
  timer_ = loop_.after(kTick, [this] { tick(); });
}

}  // namespace einhorn::agent
