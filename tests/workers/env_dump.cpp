// A worker for tests: writes what it was given as one JSON object to $ENV_DUMP_FILE.PID (complete
// when the file is there), then waits for a signal that ends it.
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", byte);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string list(char** words) {
  std::string out = "[";
  for (char** word = words; *word != nullptr; ++word) {
    if (word != words) out += ",";
    out += quoted(*word);
  }
  return out + "]";
}

std::string link_target(const std::string& path) {
  char buffer[PATH_MAX];
  ssize_t size = readlink(path.c_str(), buffer, sizeof buffer);
  return size < 0 ? "" : std::string(buffer, static_cast<std::size_t>(size));
}

int socket_option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

// Every descriptor that was open at start: what it is, and its flags.
std::string descriptors() {
  std::vector<int> numbers;
  DIR* directory = opendir("/proc/self/fd");
  while (dirent* entry = readdir(directory)) {
    int fd = static_cast<int>(std::strtol(entry->d_name, nullptr, 10));
    if (entry->d_name[0] != '.' && fd != dirfd(directory)) numbers.push_back(fd);
  }
  closedir(directory);
  std::string out = "{";
  for (int fd : numbers) {
    std::string number = std::to_string(fd);
    if (out.size() > 1) out += ",";
    int flags = fcntl(fd, F_GETFL);
    out += quoted(number) + ":{\"target\":" + quoted(link_target("/proc/self/fd/" + number)) +
           ",\"nonblock\":" + ((flags & O_NONBLOCK) != 0 ? "true" : "false") +
           ",\"type\":" + std::to_string(socket_option(fd, SO_TYPE)) +
           ",\"listening\":" + (socket_option(fd, SO_ACCEPTCONN) == 1 ? "true" : "false") +
           ",\"reuseaddr\":" + (socket_option(fd, SO_REUSEADDR) == 1 ? "true" : "false") +
           ",\"reuseport\":" + (socket_option(fd, SO_REUSEPORT) == 1 ? "true" : "false") + "}";
  }
  return out + "}";
}

// The lines of /proc/self/status on signals: masks in hexadecimal.
std::string signal_masks() {
  std::ifstream status("/proc/self/status");
  std::string out = "{";
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Sig", 0) != 0 && line.rfind("ShdPnd", 0) != 0) continue;
    auto tab = line.find('\t');
    if (out.size() > 1) out += ",";
    out += quoted(line.substr(0, tab - 1)) + ":" + quoted(line.substr(tab + 1));
  }
  return out + "}";
}

}  // namespace

int main(int, char** argv) {
  const char* base = std::getenv("ENV_DUMP_FILE");
  if (base == nullptr) {
    std::fputs("env_dump: ENV_DUMP_FILE is not set\n", stderr);
    return 64;
  }
  std::string fds = descriptors();  // first: before this program opens anything
  std::string pid = std::to_string(getpid());
  char directory[PATH_MAX];
  std::string cwd = getcwd(directory, sizeof directory) == nullptr ? "" : directory;
  std::string text = "{\"argv\":" + list(argv) + ",\"environ\":" + list(environ) +
                     ",\"fds\":" + fds + ",\"signals\":" + signal_masks() + ",\"pid\":" + pid +
                     ",\"ppid\":" + std::to_string(getppid()) +
                     ",\"pgid\":" + std::to_string(getpgrp()) +
                     ",\"sid\":" + std::to_string(getsid(0)) + ",\"cwd\":" + quoted(cwd) +
                     ",\"exe\":" + quoted(link_target("/proc/self/exe")) +
                     ",\"nice\":" + std::to_string(getpriority(PRIO_PROCESS, 0)) + "}\n";
  std::string path = std::string(base) + "." + pid;
  std::string unfinished = path + ".unfinished";
  std::ofstream(unfinished) << text;
  if (std::rename(unfinished.c_str(), path.c_str()) != 0) return 65;
  for (;;) pause();
}
