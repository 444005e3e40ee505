// The guard with a master that says anything, and perhaps with a successor of it.
//
// The real guard runs in this process, over sockets in which everything is said already. Master and
// successor are two children that are dead from the beginning, so that the guard goes once it has
// heard everything; the last thing that both say is their word. In the text of a message 0x01
// stands for the pid of the successor and 0x02 for the master's.
#include "guard/guard.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "guard/linux_system.h"
#include "os/unique_fd.h"

namespace einhorn::fuzz {
namespace {

constexpr int kWord = 7;
constexpr std::size_t kMaxMessages = 32;

// While a guard runs, the signals by which a fuzzer sees that an input takes too long are blocked:
// this one is not.
class Alarm {
 public:
  Alarm() {
    std::signal(SIGRTMIN, [](int) { std::abort(); });
    sigevent how{};
    how.sigev_notify = SIGEV_SIGNAL;
    how.sigev_signo = SIGRTMIN;
    holds(timer_create(CLOCK_MONOTONIC, &how, &timer_) == 0, "there is a timer");
    const itimerspec at{{}, {10, 0}};
    timer_settime(timer_, 0, &at, nullptr);
  }
  ~Alarm() { timer_delete(timer_); }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

 private:
  timer_t timer_{};
};

// A child that is dead and not reaped.
pid_t make_dead() {
  const pid_t pid = vfork();
  if (pid == 0) {
    _exit(0);
  }
  holds(pid > 0, "there is a child");
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  return pid;
}

struct Line {
  Line() {
    std::array<int, 2> pair{};
    const int made =
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data());
    holds(made == 0, "there is a pair of sockets");
    guard = pair[0];
    child = os::UniqueFd(pair[1]);
  }
  int guard;  // closed by the guard, or with everything that it kept
  os::UniqueFd child;
};

void say(const Line& line, std::string_view text, const std::vector<int>& fds) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(4 * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  holds(sendmsg(line.child.get(), &header, MSG_NOSIGNAL) >= 0, "the input fits into the socket");
}

std::string with_pids(std::string_view text, pid_t master, pid_t successor) {
  std::string out;
  for (const char letter : text) {
    if (letter == 1 || letter == 2) {
      out += std::to_string(letter == 1 ? successor : master);
    } else {
      out += letter;
    }
  }
  return out;
}

// What the guard kept open goes with its process; here it has to go by itself.
class Leftovers {
 public:
  Leftovers() : lowest_(open("/dev/null", O_RDWR | O_CLOEXEC)) {}
  ~Leftovers() { close_range(static_cast<unsigned>(lowest_), ~0U, 0); }
  Leftovers(const Leftovers&) = delete;
  Leftovers& operator=(const Leftovers&) = delete;
  [[nodiscard]] int null() const { return lowest_; }

 private:
  int lowest_;
};

}  // namespace

void run(std::string_view input) {
  const Alarm alarm;
  sigset_t before;
  sigprocmask(SIG_SETMASK, nullptr, &before);
  {
    const Leftovers leftovers;
    const pid_t successor = make_dead();
    const pid_t master = make_dead();
    const Line first;
    const Line second;
    Choices choices(input);
    for (std::size_t i = 0; i < kMaxMessages && !choices.empty(); ++i) {
      const std::uint8_t how = choices.byte();
      std::vector<int> fds((how >> 1U) & 3U, leftovers.null());
      if (!fds.empty() && (how & 8U) != 0) {
        fds[0] = second.guard;
      }
      const std::string text = with_pids(choices.text(choices.byte()), master, successor);
      if (!text.empty()) {  // which would be the end of the line
        say((how & 1U) != 0 ? second : first, text, fds);
      }
    }
    const std::string word = "EXIT_STATUS=" + std::to_string(kWord);
    say(first, word, {});
    say(second, word, {});

    auto plan = std::make_unique<guard::Plan>();
    std::array<std::string, 4> words = {"einhorn", "--with-state-fd", "199", "--"};
    std::array<char*, 5> arguments = {words[0].data(), words[1].data(), words[2].data(),
                                      words[3].data(), nullptr};
    std::array<char*, 1> environment = {nullptr};
    plan->arguments = arguments.data();
    plan->environment = environment.data();
    std::memcpy(plan->log_file.data(), "/dev/null", 10);
    guard::LinuxSystem system(*plan);
    auto guard = std::make_unique<guard::Guard>(system);
    guard->adopt(master, first.guard, 0);
    holds(guard->run() == kWord, "the guard ends with its master's word");
  }
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace einhorn::fuzz
