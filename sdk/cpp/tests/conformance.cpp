// The conformance program in C++; what it does is written down in
// tests/integration/sdk/scenario.py.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include <einhorn/worker.hpp>

namespace {

std::string text_of(const char* variable, const char* otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? text : otherwise;
}

einhorn::Listener wanted_socket() {
  const std::string which = text_of("SDK_SOCKET", "0");
  return which[0] >= '0' && which[0] <= '9' ? einhorn::listener(std::stoi(which))
                                            : einhorn::listener(which);
}

einhorn::Via wanted_way() {
  const std::string via = text_of("SDK_ACK", "auto");
  return via == "path"     ? einhorn::Via::kPath
         : via == "fd"     ? einhorn::Via::kFd
         : via == "notify" ? einhorn::Via::kNotify
                           : einhorn::Via::kAuto;
}

const char* boolean(bool value) { return value ? "true" : "false"; }

// What a call fails with, as JSON: null or a text. The messages hold quotes only around a name.
std::string failure(const std::function<void()>& call) {
  try {
    call();
    return "null";
  } catch (const einhorn::Error& error) {
    std::string text = "\"";
    for (const char c : std::string(error.what())) text += c == '"' ? "\\\"" : std::string(1, c);
    return text + '"';
  }
}

int tell() {
  int fd = -1;
  const std::string why = failure([] { einhorn::require_worker(); });
  const std::string error = failure([&fd] { fd = wanted_socket().fd(); });
  std::cout << "{\"worker\":" << boolean(einhorn::is_worker()) << ",\"why\":" << why
            << ",\"index\":" << einhorn::index().value_or(-1)
            << ",\"count\":" << einhorn::socket_count() << ",\"fd\":" << fd
            << ",\"error\":" << error << ",\"ack\":" << boolean(einhorn::ack())
            << ",\"ping\":" << boolean(einhorn::ping({"x", false, {}}))
            << ",\"status\":" << boolean(einhorn::status("x")) << "}\n";
  return 0;
}

void wait_for_file(const std::string& file) {
  std::ofstream(file + ".begun").flush();
  while (!std::ifstream(file)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

bool act(const std::string& path) {
  if (path == "/ack") return einhorn::ack(wanted_way());
  if (path == "/ping") return einhorn::ping({"100%25 \"sure\"\n\xc3\xbc", true, "serving"});
  if (path == "/status") return einhorn::status("warming up");
  if (path.rfind("/slow?", 0) == 0) wait_for_file(path.substr(6));
  return false;
}

void serve(const einhorn::Connection& client) {
  std::string request;
  char buffer[4096];
  while (request.find("\r\n\r\n") == std::string::npos) {
    const ssize_t got = read(client.fd(), buffer, sizeof buffer);
    if (got <= 0) return;
    request.append(buffer, static_cast<std::size_t>(got));
  }
  std::string method;
  std::string path;
  std::istringstream(request) >> method >> path;
  std::string sent = "\"error\"";
  try {
    sent = boolean(act(path));
  } catch (const einhorn::Error& error) {
    std::cerr << error.what() << std::endl;
  }
  std::ostringstream body;
  body << "{\"pid\":" << getpid() << ",\"index\":" << einhorn::index().value_or(-1)
       << ",\"worker\":" << boolean(einhorn::is_worker()) << ",\"sent\":" << sent << "}";
  const std::string reply =
      "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.str().size()) +
      "\r\nConnection: close\r\n\r\n" + body.str();
  send(client.fd(), reply.data(), reply.size(), MSG_NOSIGNAL);
}

einhorn::Listener own_port() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  listen(fd, 100);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  std::cout << "listening on " << ntohs(address.sin_port) << std::endl;
  return einhorn::Listener(fd);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc > 1 && std::string(argv[1]) == "tell") return tell();
  einhorn::on_stop();
  const einhorn::Listener listener = einhorn::socket_count() > 0 ? wanted_socket() : own_port();
  if (text_of("SDK_ACK_AT", "start") == "start") einhorn::ack(wanted_way());
  std::atomic<int> serving = 0;
  while (auto client = listener.accept()) {
    ++serving;
    std::thread([&serving, connection = std::move(*client)]() mutable {
      serve(connection);
      einhorn::Connection(connection.release());
      --serving;
    }).detach();
  }
  while (serving > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return 0;
} catch (const einhorn::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
