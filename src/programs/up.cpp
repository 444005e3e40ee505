#include "programs/up.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>

#include "base/signals.h"
#include "master/boot.h"
#include "os/c_strings.h"
#include "os/unique_fd.h"
#include "programs/ask_pool.h"

namespace einhorn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFirstDelay = std::chrono::milliseconds{200};
constexpr auto kMostDelay = std::chrono::seconds{30};
constexpr auto kLived = std::chrono::seconds{60};  // after so long a failure is a new one
constexpr const char* kDefaultFile = "einhorn.yaml";

void say(const std::string& text) {
  const pid_t own = getpid();
  std::fprintf(stderr, "[UP %d] %s\n", static_cast<int>(own), text.c_str());
}

bool is_config_file(const std::string& word) {
  return word.ends_with(".yaml") || word.ends_with(".yml");
}

// The command line of the pools: without `up`, with --config.
std::vector<std::string> words_of_pools(const std::vector<std::string>& words) {
  std::vector<std::string> kept;
  std::vector<std::string> behind;
  const auto up = std::find(words.begin(), words.end(), "up");
  kept.assign(words.begin(), up);
  behind.assign(up == words.end() ? up : up + 1, words.end());
  for (const std::string& word : behind) {
    if (is_config_file(word) && (kept.empty() || kept.back() != "--config")) {
      kept.emplace_back("--config");
    }
    kept.push_back(word);
  }
  const bool named = std::any_of(kept.begin(), kept.end(), [](const std::string& word) {
    return word == "--config" || word.starts_with("--config=");
  });
  if (!named) {
    kept.insert(kept.begin(), {"--config", kDefaultFile});
  }
  return kept;
}

struct PoolProcess {
  pid_t pid = -1;
  // Of one that an `up` before this one had started, and which is no child of ours.
  os::UniqueFd adopted;
  std::string socket_path;
  bool wanted = true;
  int failures = 0;
  Clock::time_point started;
  std::optional<Clock::time_point> start_at;
};

class Up {
 public:
  Up(std::string script, std::vector<std::string> words)
      : script_(std::move(script)), words_(std::move(words)) {
    sigemptyset(&signals_);
    for (const int number :
         {SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU}) {
      sigaddset(&signals_, number);
    }
  }

  int run() {
    const std::optional<std::vector<std::string>> names = read_names();
    if (!names) {
      return 1;
    }
    sigprocmask(SIG_SETMASK, &signals_, nullptr);
    signal_fd_ = os::UniqueFd(signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signal_fd_) {
      std::fprintf(stderr, "einhorn: signalfd: %s\n", std::strerror(errno));
      return 1;
    }
    for (const std::string& name : *names) {
      begin(name, pools_[name]);
    }
    while (!pools_.empty()) {
      wait();
      reap();
      start_due();
    }
    return failed_ ? 1 : 0;
  }

 private:
  // None: the file is no good, which has been said.
  std::optional<std::vector<std::string>> read_names() {
    const master::Configuration whole = checked({"--check-config"});
    if (!whole.errors.empty() || whole.pools.empty()) {
      if (whole.errors.empty()) {
        std::fprintf(stderr, "einhorn: %s: it has no `pools`\n", whole.options.config_path.c_str());
      }
      return std::nullopt;
    }
    for (const std::string& name : whole.pools) {
      if (!checked({"--pool", name}).errors.empty()) {
        return std::nullopt;
      }
    }
    return whole.pools;
  }

  master::Configuration checked(std::vector<std::string> words) {
    words.insert(words.end(), words_.begin(), words_.end());
    master::Configuration read = master::configure(words);
    if (read.errors.empty() && read.options.daemonize) {
      read.errors.push_back(make_error("daemonize", "not for pools of `einhorn up`"));
    }
    for (const Error& error : read.errors) {
      std::fprintf(stderr, "einhorn: %s\n", error.message().c_str());
    }
    return read;
  }

  // Goes on with a pool that runs already: its `up` was killed.
  void begin(const std::string& name, PoolProcess& pool) {
    const master::Configuration read = checked({"--pool", name});
    wire::Settings files = read.options.settings;
    if (read.errors.empty() && master::fill_in_files(files)) {
      pool.socket_path = files.socket_path;
      adopt(name, pool);
    }
    if (pool.pid < 0) {
      start(name, pool);
    }
  }

  static void adopt(const std::string& name, PoolProcess& pool) {
    const std::optional<PoolState> found = ask_pool(pool.socket_path);
    if (!found || found->guard <= 0) {
      return;  // if its guard is dead, a new one takes the pool over
    }
    const auto guard = static_cast<pid_t>(found->guard);
    os::UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, guard, 0)));
    const std::optional<PoolState> again = ask_pool(pool.socket_path);
    if (!process || !again || again->guard != found->guard) {
      return;
    }
    pool.adopted = std::move(process);
    pool.pid = guard;
    pool.started = Clock::now();
    say("pool " + name + " runs already, as " + std::to_string(guard));
  }

  void start(const std::string& name, PoolProcess& pool) {
    std::vector<std::string> words = {script_, "--pool", name};
    words.insert(words.end(), words_.begin(), words_.end());
    const std::vector<char*> pointers = os::c_strings(words);
    pool.start_at.reset();
    pool.started = Clock::now();
    pool.pid = fork();
    if (pool.pid == 0) {
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      execv("/proc/self/exe", pointers.data());
      _exit(127);
    }
    if (pool.pid < 0) {
      say("ERROR: can't start pool " + name + ": " + strerrordesc_np(errno));
      start_later(pool);
      return;
    }
    say("pool " + name + " runs as " + std::to_string(pool.pid));
  }

  static void start_later(PoolProcess& pool) {
    if (Clock::now() - pool.started > kLived) {
      pool.failures = 0;
    }
    const auto delay = kFirstDelay * (1 << std::min(pool.failures++, 10));
    pool.start_at = Clock::now() + std::min<Clock::duration>(delay, kMostDelay);
  }

  void wait() {
    std::optional<Clock::time_point> first;
    for (const auto& [name, pool] : pools_) {
      if (pool.start_at && (!first || *pool.start_at < *first)) {
        first = pool.start_at;
      }
    }
    std::vector<pollfd> watched = {{signal_fd_.get(), POLLIN, 0}};
    for (const auto& [name, pool] : pools_) {
      if (pool.adopted) {
        watched.push_back({pool.adopted.get(), POLLIN, 0});
      }
    }
    int milliseconds = -1;
    if (first) {
      const auto left = std::max(*first - Clock::now(), Clock::duration::zero());
      milliseconds = static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left).count());
    }
    poll(watched.data(), watched.size(), milliseconds);
    signalfd_siginfo signal{};
    while (read(signal_fd_.get(), &signal, sizeof(signal)) == sizeof(signal)) {
      if (signal.ssi_signo != SIGCHLD) {
        pass_on(static_cast<int>(signal.ssi_signo));
      }
    }
  }

  void pass_on(int number) {
    const bool ends =
        number == SIGTERM || number == SIGINT || number == SIGQUIT || number == SIGUSR2;
    say(signal_name(number) + (ends ? ": all pools are ended" : " goes on to all pools"));
    if (number == SIGHUP) {
      read_again();
    }
    stopping_ = stopping_ || ends;
    std::erase_if(pools_, [this](const auto& entry) { return stopping_ && entry.second.pid < 0; });
    for (const auto& [name, pool] : pools_) {
      send(pool, number);
    }
  }

  static void send(const PoolProcess& pool, int number) {
    if (pool.adopted) {
      syscall(SYS_pidfd_send_signal, pool.adopted.get(), number, nullptr, 0);
    } else if (pool.pid > 0) {
      kill(pool.pid, number);  // our unreaped child, so the pid is its own
    }
  }

  void read_again() {
    const std::optional<std::vector<std::string>> names = read_names();
    if (!names) {
      say("ERROR: the configuration stays as it was");
      return;
    }
    for (auto& [name, pool] : pools_) {
      const bool named = std::find(names->begin(), names->end(), name) != names->end();
      if (!named && std::exchange(pool.wanted, false) && pool.pid > 0) {
        say("pool " + name + " is not in the file any more, and is asked to finish");
        send(pool, SIGINT);
      }
    }
    std::erase_if(pools_,
                  [](const auto& entry) { return !entry.second.wanted && entry.second.pid < 0; });
    for (const std::string& name : *names) {
      if (!pools_.contains(name)) {
        begin(name, pools_[name]);
      }
    }
  }

  void reap() {
    int status = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto found = std::find_if(pools_.begin(), pools_.end(),
                                      [pid](const auto& entry) { return entry.second.pid == pid; });
      if (found != pools_.end()) {
        on_ended(found->first, found->second, status);
      }
    }
    for (auto& [name, pool] : pools_) {
      pollfd ended{pool.adopted.get(), POLLIN, 0};
      if (pool.adopted && poll(&ended, 1, 0) == 1) {
        on_adopted_ended(name, pool);
      }
    }
    std::erase_if(pools_,
                  [](const auto& entry) { return entry.second.pid < 0 && !entry.second.start_at; });
  }

  // How it ended nobody tells us; but a pool that leaves takes its socket along.
  void on_adopted_ended(const std::string& name, PoolProcess& pool) {
    pool.adopted.reset();
    pool.pid = -1;
    if (stopping_ || !pool.wanted || access(pool.socket_path.c_str(), F_OK) != 0) {
      say("pool " + name + " has ended");
      return;
    }
    say("ERROR: pool " + name + " has lost its guard; it is started again");
    start_later(pool);
  }

  void on_ended(const std::string& name, PoolProcess& pool, int status) {
    pool.pid = -1;
    const bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (well || stopping_ || !pool.wanted) {
      failed_ = failed_ || !well;
      say("pool " + name + " has ended");
      return;
    }
    start_later(pool);
    const auto delay =
        std::chrono::duration_cast<std::chrono::milliseconds>(*pool.start_at - Clock::now());
    say("ERROR: pool " + name +
        (WIFSIGNALED(status) ? " was killed by signal " + std::to_string(WTERMSIG(status))
                             : " exited with status " + std::to_string(WEXITSTATUS(status))) +
        "; it is started again in " + std::to_string(delay.count()) + " ms");
  }

  void start_due() {
    for (auto& [name, pool] : pools_) {
      if (pool.start_at && *pool.start_at <= Clock::now()) {
        start(name, pool);
      }
    }
  }

  std::string script_;
  std::vector<std::string> words_;
  sigset_t signals_{};
  os::UniqueFd signal_fd_;
  std::map<std::string, PoolProcess> pools_;
  bool stopping_ = false;
  bool failed_ = false;
};

}  // namespace

bool wants_up(const master::Configuration& configuration) {
  const std::vector<std::string>& command = configuration.options.command;
  return configuration.options.mode == master::Options::Mode::kRun && !command.empty() &&
         command[0] == "up" &&
         (command.size() == 1 || (command.size() == 2 && is_config_file(command[1])));
}

int run_up(const std::string& script, const std::vector<std::string>& words) {
  return Up(script, words_of_pools(words)).run();
}

}  // namespace einhorn
