// What the supervisor says to the master: whole messages over a sequenced-packet socket, each lines
// of KEY=VALUE. From any thread. What finds no room waits, up to a limit; lines of the log beyond
// it are dropped, facts are not: the master asks for them anew (SYNC).
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>

#include "base/ids.h"

namespace einhorn::intercept {

class Reports {
 public:
  explicit Reports(int socket) : socket_(socket) {}

  void hello() { send("HELLO=1", -1); }
  // The program of that worker has called listen on (or, for datagrams, bound) that shared socket.
  void listening(Epoch worker, std::uint32_t shared);
  void probed(Epoch worker);
  // That worker's connections are over, or nobody can say.
  void drained(Epoch worker);
  // Nobody is under that worker's filter any more.
  void gone(Epoch worker);
  // One more form of a shared socket, to be kept. The descriptor must live as long as this.
  void form(std::uint32_t shared, std::uint32_t number, int fd);
  void info(std::string_view event, const std::string& text) { say("info", event, text); }
  void error(std::string_view event, const std::string& text) { say("error", event, text); }

  [[nodiscard]] int socket() const { return socket_; }
  [[nodiscard]] bool waiting();
  void flush();

 private:
  struct Waiting {
    std::string text;
    int fd = -1;
  };
  void say(const char* level, std::string_view event, const std::string& text);
  void send(std::string text, int fd);
  bool try_send(const Waiting& message) const;

  int socket_;
  std::mutex mutex_;
  std::deque<Waiting> waiting_;
};

}  // namespace einhorn::intercept
