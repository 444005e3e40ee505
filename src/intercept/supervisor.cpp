#include "intercept/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/key_values.h"
#include "base/numbers.h"
#include "intercept/desk.h"
#include "intercept/door.h"
#include "intercept/drain.h"
#include "intercept/probe.h"
#include "intercept/reports.h"
#include "intercept/watcher.h"
#include "os/linux/retry.h"

namespace einhorn::intercept {
namespace {

constexpr std::size_t kMostMessageBytes = 64 * 1024;
constexpr int kLeavePatienceMs = 500;
constexpr int kSilentLookMs = 10;

// Of a message that begins with a worker's epoch.
Asker asker_of(const KeyValues& lines) {
  return {Epoch{number_of(lines[0].second)},
          static_cast<std::uint32_t>(number_of(value_of(lines, "slot")))};
}

class Supervisor {
 public:
  explicit Supervisor(int control)
      : control_(control),
        reports_(control),
        desk_(reports_),
        leave_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        files_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    watch_ = std::make_shared<Watch>(desk_, reports_, leave_.get());
  }

  int run() {
    reports_.hello();
    bool some_are_silent = false;
    while (!over_) {
      std::vector<pollfd> waiting{{control_, POLLIN, 0}, {files_.get(), POLLIN, 0}};
      waiting.push_back({desk_.news_fd(), POLLIN, 0});
      for (const int fd : desk_.listening_fds()) {
        waiting.push_back({fd, 0, 0});
      }
      if (reports_.waiting()) {
        waiting[0].events |= POLLOUT;
      }
      // What threads could not send is looked for now and then.
      const int patience = some_are_silent ? kSilentLookMs : reports_.waiting() ? -1 : 1000;
      if (poll(waiting.data(), waiting.size(), patience) < 0 && errno != EINTR) {
        break;
      }
      if (waiting[2].revents != 0) {
        some_are_silent = true;  // looked at when they have had their time to call listen
      } else if (some_are_silent) {
        some_are_silent = desk_.look_for_silent();
      }
      desk_.listen_again();
      reports_.flush();
      if ((waiting[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        receive();
      }
      if (waiting[1].revents != 0) {
        std::array<char, 4096> events;
        while (read(files_.get(), events.data(), events.size()) > 0) {
        }
        desk_.restore_files();
      }
    }
    leave();
    return 0;
  }

 private:
  void receive() {
    std::vector<char> text(kMostMessageBytes);
    for (;;) {
      iovec part{text.data(), text.size()};
      msghdr header{};
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> rights{};
      header.msg_iov = &part;
      header.msg_iovlen = 1;
      header.msg_control = rights.data();
      header.msg_controllen = rights.size();
      const ssize_t count =
          os::retry([&] { return recvmsg(control_, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return;
      }
      if (count <= 0) {
        over_ = true;  // neither master nor guard is there any more
        return;
      }
      os::UniqueFd fd;
      const cmsghdr* first = CMSG_FIRSTHDR(&header);
      if (first != nullptr && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS) {
        int number = -1;
        std::memcpy(&number, CMSG_DATA(first), sizeof(number));
        fd.reset(number);
      }
      on_message(key_values({text.data(), static_cast<std::size_t>(count)}), std::move(fd));
    }
  }

  void on_message(const KeyValues& lines, os::UniqueFd fd) {
    if (lines.empty()) {
      return;
    }
    const std::string_view verb = lines[0].first;
    if (verb == "SETTINGS") {
      std::vector<os::InterceptRule> rules;
      for (const auto& [key, value] : lines) {
        if (key == "rule") {
          if (Result<os::InterceptRule> rule = os::parse_intercept_rule(value)) {
            rules.push_back(std::move(*rule));
          }
        }
      }
      probes_.set_kind(std::string(value_of(lines, "probe")));
      desk_.set_rules(std::move(rules), number_of(value_of(lines, "tell_all")) != 0);
    } else if (verb == "SHARED" && fd) {
      desk_.add(static_cast<std::uint32_t>(number_of(value_of(lines, "SHARED"))),
                std::string(value_of(lines, "name")),
                static_cast<int>(number_of(value_of(lines, "backlog"))),
                std::string(value_of(lines, "backup")), number_of(value_of(lines, "used")) != 0,
                std::move(fd));
      watch_files();
    } else if (verb == "FORM" && fd) {
      desk_.add_form(static_cast<std::uint32_t>(number_of(value_of(lines, "FORM"))),
                     static_cast<std::uint32_t>(number_of(value_of(lines, "number"))),
                     std::move(fd));
    } else if (verb == "WORKER" && fd) {
      const bool again = number_of(value_of(lines, "again")) != 0;
      if (again && is_watched(*watch_, asker_of(lines).worker)) {
        return;
      }
      if (!start_watching(watch_, Watched{asker_of(lines), std::move(fd)})) {
        // Its calls would wait for ever: without us nobody answers, so leave it to another one.
        reports_.error("intercept_failed", "There is no thread to be had for one more worker");
        over_ = true;
      }
    } else if (verb == "DOOR" && fd) {
      drains_.set_watched_by_filter(false);
      if (!open_for_questions(watch_, std::move(fd), std::string(value_of(lines, "secret")))) {
        reports_.error("intercept_failed", "There is no thread to be had for the door");
        over_ = true;
      }
    } else if (verb == "PROBE") {
      probes_.begin(asker_of(lines), static_cast<pid_t>(number_of(value_of(lines, "pid"))));
    } else if (verb == "DRAIN") {
      drains_.begin(asker_of(lines), static_cast<pid_t>(number_of(value_of(lines, "pid"))));
    } else if (verb == "SIGNALED") {
      drains_.signaled(Epoch{number_of(value_of(lines, verb))});
    } else if (verb == "ENDED") {
      drains_.ended(Epoch{number_of(value_of(lines, verb))});
      probes_.ended(Epoch{number_of(value_of(lines, verb))});
    } else if (verb == "ADOPTED") {
      std::thread(&wake_stuck).detach();
    } else if (verb == "SYNC") {
      desk_.tell_again();
    } else if (verb == "LEAVE") {
      over_ = true;
    }
  }

  void watch_files() {
    for (const std::string& file : desk_.watched_files()) {
      const std::string directory = file.substr(0, file.rfind('/') + 1);
      inotify_add_watch(files_.get(), directory.c_str(), IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
    }
  }

  // What was received is answered; a program that makes us wait is not waited for.
  void leave() {
    eventfd_write(leave_.get(), 1);
    for (int waited = 0; watch_->busy > 0 && waited < kLeavePatienceMs; ++waited) {
      poll(nullptr, 0, 1);
    }
    reports_.flush();
    _exit(0);  // threads may still be there
  }

  int control_;
  Reports reports_;
  Desk desk_;
  Drains drains_{desk_, reports_};
  Probes probes_{desk_, reports_};
  os::UniqueFd leave_;
  os::UniqueFd files_;
  std::shared_ptr<Watch> watch_;
  bool over_ = false;
};

}  // namespace

int run_supervisor(int control) {
  // Descriptors of programs have numbers that may be beyond our own limit.
  rlimit most{};
  if (getrlimit(RLIMIT_NOFILE, &most) == 0) {
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
  }
  fcntl(control, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_NAME, "einhorn-watch");
  Supervisor supervisor(control);
  return supervisor.run();
}

}  // namespace einhorn::intercept
