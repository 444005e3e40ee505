// Connections of browsers and scrapers: requests in, answers out, and event streams that stay.
//
// A client that does not read costs nobody else anything: an event stream with more than
// kMostUnsent bytes waiting is closed (the browser comes back by itself), and so is whoever keeps a
// request half said, or an answer half taken, for long. Of others nothing is read while an answer to
// them waits: many requests at once are answered one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/http.h"
#include "client/loop.h"
#include "os/unique_fd.h"

namespace einhorn::agent {

using client::Loop;

class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;
  // Whether that request is for an event stream, and of which pool ("" all); its first bytes.
  struct Stream {
    bool wanted = false;
    std::string pool;
    std::string first;
  };
  using StreamChooser = std::function<Stream(const HttpRequest&)>;

  static constexpr std::size_t kMostConnections = 512;
  static constexpr std::size_t kMostUnsent = 4u << 20u;

  HttpServer(Loop& loop, os::UniqueFd listener, Handler handler, StreamChooser chooser);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // To every event stream of that pool. One event: a name and one line of data.
  void send_event(const std::string& pool, std::string_view name, std::string_view data);
  [[nodiscard]] bool has_streams() const { return streams_ > 0; }
  [[nodiscard]] std::size_t size() const { return clients_.size(); }
  [[nodiscard]] int listener() const { return listener_.get(); }

 private:
  struct Client {
    os::UniqueFd fd;
    HttpParser parser;
    std::string input;
    std::string output;
    bool writing = false;
    bool closing = false;
    bool stream = false;
    bool dead = false;
    std::string pool;
    Instant heard_at;
  };

  void accept();
  void on_client(std::uint64_t id, Loop::Ready ready);
  void read(Client& client);
  void take(Client& client);
  void answer(Client& client, const HttpRequest& request);
  void flush(Client& client);
  void sweep();
  void tick();

  Loop& loop_;
  os::UniqueFd listener_;
  Handler handler_;
  StreamChooser chooser_;
  std::map<std::uint64_t, Client> clients_;
  std::uint64_t next_id_ = 1;
  std::size_t streams_ = 0;
  Loop::TimerId timer_ = 0;
};

}  // namespace einhorn::agent
