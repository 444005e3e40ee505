// The same as honest/worker.py, in C++: /hang, /sleep/S, /leak/M, /fork, and otherwise who it is.
// Arguments: how often it pings in milliseconds (0: never), and `ignore`: it does nothing on USR2.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

volatile sig_atomic_t stopping = 0;
// What was leaked stays to the end.
std::vector<std::string>& kept() {
  static std::vector<std::string> all;
  return all;
}

// A message over a connection of its own.
void tell(const std::string& message) {
  const char* path = std::getenv("EINHORN_SOCK_PATH");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) {
    return;
  }
  std::memcpy(address.sun_path, path, std::strlen(path));
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const std::string line = message + "\n";
  if (connect(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      write(socket_fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::perror("tell");
  }
  close(socket_fd);
}

std::string of_me(const char* command) {
  return std::string("{\"command\":\"") + command + "\",\"pid\":" + std::to_string(getpid());
}

void ping(const std::string& id, bool busy) {
  tell(of_me("worker:ping") + ",\"request_id\":\"" + id +
       "\",\"busy\":" + (busy ? "true" : "false") + "}");
}

}  // namespace

// With a name that a stack shows.
extern "C" [[gnu::noinline]] void hang_for_ever() {
  for (;;) {
    pause();
  }
}

namespace {

int number_of(const char* text) { return static_cast<int>(std::strtol(text, nullptr, 10)); }

void act(const std::string& path) {
  const std::size_t slash = path.find('/', 1);
  const std::string verb = path.substr(1, slash == std::string::npos ? slash : slash - 1);
  const int argument = slash == std::string::npos ? 0 : number_of(path.c_str() + slash + 1);
  if (verb == "hang") {
    hang_for_ever();
  } else if (verb == "sleep") {
    sleep(static_cast<unsigned>(argument));
  } else if (verb == "leak") {
    kept().emplace_back(std::size_t(argument) << 20U, 'x');
  } else if (verb == "fork") {
    if (fork() == 0) {
      std::signal(SIGUSR2, SIG_IGN);
      hang_for_ever();
    }
  }
}

void serve(int listener, int count) {
  const int stream = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (stream < 0) {
    return;
  }
  char request[4096];
  const ssize_t length = read(stream, request, sizeof request - 1);
  if (length > 0) {
    request[length] = '\0';
    const std::string text = request;
    const std::size_t begin = text.find(' ') + 1;
    const std::string id = "r" + std::to_string(count) + "-" + std::to_string(getpid());
    ping(id, true);
    act(text.substr(begin, text.find(' ', begin) - begin));
    ping(id, false);
    const std::string body =
        "{\"pid\":" + std::to_string(getpid()) + ",\"count\":" + std::to_string(count) + "}";
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                               "\r\nConnection: close\r\n\r\n" + body;
    if (write(stream, answer.data(), answer.size()) < 0) {
      std::perror("write");
    }
  }
  shutdown(stream, SHUT_WR);
  close(stream);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  int interval = 0;
  bool ignore = false;
  for (int i = 1; i < argc; ++i) {
    ignore = ignore || std::strcmp(argv[i], "ignore") == 0;
    interval = number_of(argv[i]) > 0 ? number_of(argv[i]) : interval;
  }
  struct sigaction action {};
  action.sa_handler = [](int) { stopping = 1; };
  if (ignore) {
    action.sa_handler = SIG_IGN;
  }
  sigaction(SIGUSR2, &action, nullptr);
  const char* fd = std::getenv("EINHORN_FD_0");
  const int listener = fd != nullptr ? number_of(fd) : 0;
  // Another worker may be faster: nobody waits in accept.
  fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
  tell(of_me("worker:ack") + "}");
  auto due = std::chrono::steady_clock::now();
  for (int count = 0; stopping == 0;) {
    if (interval > 0 && std::chrono::steady_clock::now() >= due) {
      tell(of_me("worker:ping") + "}");
      due = std::chrono::steady_clock::now() + std::chrono::milliseconds(interval);
    }
    pollfd query{listener, POLLIN, 0};
    if (poll(&query, 1, interval > 0 ? interval : 200) == 1 && stopping == 0) {
      serve(listener, ++count);
    }
  }
  return 0;
}
