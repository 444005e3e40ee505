#include "programs/daemonize.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "master/boot.h"
#include "os/own_file.h"
#include "os/read_file.h"
#include "programs/ask_pool.h"

namespace einhorn {
namespace {

constexpr long kLookEveryNs = 50'000'000;
constexpr int kEndPatienceSeconds = 30;
constexpr std::int64_t kMostDeaths = 3;
constexpr std::size_t kMostLogBytes = 64u << 20u;
constexpr std::size_t kMostLines = 20;

int complain(const std::string& text) {
  std::fprintf(stderr, "einhorn: %s\n", text.c_str());
  return 1;
}

off_t size_of(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 ? status.st_size : 0;
}

// Standard input, output and error are no longer those of whoever started us.
void detach(const std::string& log_file) {
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  const os::OpenedFile log = os::open_log_file(log_file.c_str());
  dup2(nothing, STDIN_FILENO);
  dup2(log.fd >= 0 ? log.fd : nothing, STDOUT_FILENO);
  dup2(log.fd >= 0 ? log.fd : nothing, STDERR_FILENO);
  for (const int fd : {nothing, log.fd}) {
    if (fd > STDERR_FILENO) {
      close(fd);
    }
  }
}

class Launch {
 public:
  Launch(std::string socket_path, std::string log_file, off_t log_start, pid_t pool)
      : socket_path_(std::move(socket_path)),
        log_file_(std::move(log_file)),
        log_start_(log_start),
        pool_(pool) {}

  int wait() {
    sigset_t asked_to_stop;
    sigemptyset(&asked_to_stop);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
      sigaddset(&asked_to_stop, number);
    }
    for (;;) {
      const timespec pause{0, kLookEveryNs};
      if (sigtimedwait(&asked_to_stop, nullptr, &pause) > 0) {
        return fail("interrupted; the pool is ended");
      }
      if (has_ended()) {
        show_errors();
        return complain("the pool ended before its workers were up");
      }
      switch (look()) {
        case Seen::kNotYet:
          break;
        case Seen::kUp:
          return 0;
        case Seen::kFailing:
          return fail("workers die before they are up; the pool is ended");
      }
    }
  }

 private:
  enum class Seen { kNotYet, kUp, kFailing };

  bool has_ended() {
    int status = 0;
    return waitpid(pool_, &status, WNOHANG) == pool_;
  }

  Seen look() {
    const std::optional<PoolState> state = ask_pool(socket_path_);
    if (!state || state->guard != pool_) {
      return Seen::kNotYet;
    }
    if (state->ready >= state->number) {
      return Seen::kUp;
    }
    return state->deaths_before_ack >= kMostDeaths ? Seen::kFailing : Seen::kNotYet;
  }

  int fail(const std::string& why) {
    kill(pool_, SIGTERM);  // our unreaped child, so the pid is its own
    for (int tick = 0; tick < kEndPatienceSeconds * 20 && !has_ended(); ++tick) {
      const timespec pause{0, kLookEveryNs};
      nanosleep(&pause, nullptr);
    }
    show_errors();
    return complain(why);
  }

  // What the log has said of errors since we began.
  void show_errors() const {
    const Result<std::string> log = os::read_file(log_file_, kMostLogBytes);
    if (!log) {
      return;
    }
    std::vector<std::string> lines;
    std::size_t at = std::min(static_cast<std::size_t>(log_start_), log->size());
    while (at < log->size()) {
      const std::size_t end = std::min(log->find('\n', at), log->size());
      std::string line = log->substr(at, end - at);
      if (line.find("ERROR") != std::string::npos ||
          line.find("\"level\":\"error\"") != std::string::npos) {
        lines.push_back(std::move(line));
      }
      at = end + 1;
    }
    const std::size_t from = lines.size() > kMostLines ? lines.size() - kMostLines : 0;
    for (std::size_t i = from; i < lines.size(); ++i) {
      std::fprintf(stderr, "%s\n", lines[i].c_str());
    }
  }

  std::string socket_path_;
  std::string log_file_;
  off_t log_start_;
  pid_t pool_;
};

}  // namespace

int daemonize(const master::Options& options,
              const std::function<int(const std::function<void()>& detach)>& pool) {
  const std::string log_file = options.settings.log_file;
  if (log_file.empty()) {
    return complain("--daemonize: needs --log-file, since nobody reads standard error");
  }
  wire::Settings files = options.settings;
  if (Status filled = master::fill_in_files(files); !filled) {
    return complain(filled.error().message());
  }
  const off_t log_start = size_of(log_file);
  const pid_t child = fork();
  if (child < 0) {
    return complain(std::string("fork: ") + strerrordesc_np(errno));
  }
  if (child == 0) {
    setsid();
    return pool([&log_file] { detach(log_file); });
  }
  return Launch(files.socket_path, log_file, log_start, child).wait();
}

}  // namespace einhorn
