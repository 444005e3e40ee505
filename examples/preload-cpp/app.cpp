// A small HTTP server as a library: loaded once per version, with whatever its constructors do.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include <einhorn/preload.h>

namespace {

struct Model {  // what takes long to load
  int loaded_by = getpid();
} const model;

std::atomic<bool> stopping{false};

void acknowledge() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, std::getenv("EINHORN_SOCK_PATH"), sizeof(address.sun_path) - 1);
  const int master = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(master, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string line =
        "{\"command\":\"worker:ack\",\"pid\":" + std::to_string(getpid()) + "}\n";
    static_cast<void>(write(master, line.data(), line.size()));
  }
  close(master);
}

void answer(int client) {
  std::string request;
  char buffer[4096];
  while (request.find("\r\n\r\n") == std::string::npos) {
    const ssize_t count = read(client, buffer, sizeof(buffer));
    if (count <= 0) {
      return;
    }
    request.append(buffer, static_cast<std::size_t>(count));
  }
  const std::string body =
      "{\"pid\":" + std::to_string(getpid()) +
      ",\"hello\":\"from C++\",\"loaded_by\":" + std::to_string(model.loaded_by) + "}\n";
  const std::string reply =
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  static_cast<void>(send(client, reply.data(), reply.size(), MSG_NOSIGNAL));
}

}  // namespace

int einhorn_main(int /*argc*/, char** /*argv*/) {
  struct sigaction stop {};
  stop.sa_handler = [](int) { stopping = true; };
  sigset_t blocked;
  sigset_t usual;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigprocmask(SIG_BLOCK, &blocked, &usual);
  sigaction(SIGUSR2, &stop, nullptr);
  const int listener = std::atoi(std::getenv("EINHORN_FD_0"));
  acknowledge();
  while (!stopping) {
    pollfd waits{listener, POLLIN, 0};
    if (ppoll(&waits, 1, nullptr, &usual) != 1) {  // the signal comes in here only
      continue;
    }
    // The socket is non-blocking (-b ...,n): another worker may have been faster.
    const int client = accept4(listener, nullptr, nullptr, 0);
    if (client >= 0) {
      answer(client);
      close(client);
    }
  }
  return 0;
}
