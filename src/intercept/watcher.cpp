#include "intercept/watcher.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

namespace einhorn::intercept {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
// Since 6.6, newer than our headers: whoever asks sleeps, so we run in its place, on its processor.
constexpr unsigned long kSetFlags = SECCOMP_IOW(4, __u64);
constexpr unsigned long kSyncWakeUp = 1;

class Watcher {
 public:
  Watcher(std::shared_ptr<Watch> watch, Watched watched)
      : watch_(std::move(watch)), watched_(std::move(watched)) {
    seccomp_notif_sizes sizes{};
    syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
    // A kernel newer than our headers writes more than we know of.
    request_.resize(std::max<std::size_t>(sizes.seccomp_notif, sizeof(seccomp_notif)));
    ioctl(watched_.notify.get(), kSetFlags, kSyncWakeUp);
    response_.resize(std::max<std::size_t>(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp)));
    const std::lock_guard guard(watch_->mutex);
    watch_->watched.insert(watched_.asker.worker);
  }

  void run() {
    for (;;) {
      std::array<pollfd, 2> waiting{
          {{watched_.notify.get(), POLLIN, 0}, {watch_->leave, POLLIN, 0}}};
      if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) {
        return;
      }
      if (waiting[1].revents != 0) {
        return;
      }
      if ((waiting[0].revents & POLLIN) != 0) {
        ++watch_->busy;
        answer_one();
        --watch_->busy;
      } else if (waiting[0].revents != 0) {
        // In this order: who is told of it anew while that is said says it again.
        unlist();
        watch_->desk.forget(watched_.asker.worker);
        watch_->reports.gone(watched_.asker.worker);
        return;
      }
    }
  }

 private:
  void unlist() {
    const std::lock_guard guard(watch_->mutex);
    watch_->watched.erase(watch_->watched.find(watched_.asker.worker));
  }

  void answer_one() {
    std::fill(request_.begin(), request_.end(), '\0');
    auto* request = reinterpret_cast<seccomp_notif*>(request_.data());
    if (ioctl(watched_.notify.get(), SECCOMP_IOCTL_NOTIF_RECV, request) != 0) {
      return;  // it was interrupted, or is gone
    }
    std::string why;
    std::optional<Ask> ask = look(watched_.notify.get(), *request, &why);
    Answer answer;
    if (ask) {
      answer = request->data.nr == SYS_bind ? watch_->desk.on_bind(watched_.asker, *ask)
                                            : watch_->desk.on_listen(watched_.asker, *ask);
    } else if (!why.empty()) {
      watch_->reports.error("intercept_blind",
                            "Process " + std::to_string(request->pid) + " of worker " +
                                std::to_string(watched_.asker.slot) + " can't be looked at (" +
                                why + "); what it binds is its own");
    }
    if (answer.kind == Answer::Kind::kShare) {
      answer = share(*request, *ask, answer.fd);
    }
    respond(*request, answer);
  }

  // The program's descriptor becomes the shared socket.
  Answer share(const seccomp_notif& request, const Ask& ask, int fd) {
    const std::string epoll = find_in_epoll(ask.pid, ask.fd);
    seccomp_notif_addfd addfd{};
    addfd.id = request.id;
    addfd.flags = SECCOMP_ADDFD_FLAG_SETFD;
    addfd.srcfd = static_cast<unsigned>(fd);
    addfd.newfd = static_cast<unsigned>(ask.fd);
    addfd.newfd_flags = ask.close_on_exec ? O_CLOEXEC : 0;
    if (ioctl(watched_.notify.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &addfd) < 0) {
      if (errno == ENOENT || errno == EINPROGRESS) {
        return {};  // it was interrupted or is gone: nobody waits for the answer
      }
      watch_->reports.error("intercept_failed", "The shared socket can't be put into process " +
                                                    std::to_string(ask.pid) + ": " +
                                                    strerrordesc_np(errno));
      return {Answer::Kind::kError, EADDRNOTAVAIL};
    }
    watch_->desk.handed(watched_.asker, ask, fd);
    if (!epoll.empty()) {
      tell_in_epoll(watch_->reports, watched_.asker, ask, epoll);
    }
    return {Answer::Kind::kDone};
  }

  void respond(const seccomp_notif& request, const Answer& answer) {
    std::fill(response_.begin(), response_.end(), '\0');
    auto* response = reinterpret_cast<seccomp_notif_resp*>(response_.data());
    response->id = request.id;
    switch (answer.kind) {
      case Answer::Kind::kContinue:
        // The kernel reads the program's memory again: another thread may have changed it since.
        // Then the program gets what the kernel gives anybody who asks for that address.
        response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        break;
      case Answer::Kind::kError:
        response->error = -answer.error;
        break;
      case Answer::Kind::kDone:
      case Answer::Kind::kShare:
        break;
    }
    ioctl(watched_.notify.get(), SECCOMP_IOCTL_NOTIF_SEND, response);
  }

  std::shared_ptr<Watch> watch_;
  Watched watched_;
  std::vector<char> request_;
  std::vector<char> response_;
};

void* watch_thread(void* argument) {
  const std::unique_ptr<Watcher> watcher(static_cast<Watcher*>(argument));
  watcher->run();
  return nullptr;
}

}  // namespace

void tell_in_epoll(Reports& reports, const Asker& asker, const Ask& ask, const std::string& epoll) {
  reports.error("intercept_epoll",
                "Process " + std::to_string(ask.pid) + " of worker " + std::to_string(asker.slot) +
                    " has put its socket for " + format(ask.address) + " into an epoll set (" +
                    epoll +
                    ") before it called bind; the set does not know the shared socket, so this "
                    "program will not see connections: it can't be intercepted");
}

bool is_watched(Watch& watch, Epoch worker) {
  const std::lock_guard guard(watch.mutex);
  return watch.watched.contains(worker);
}

bool start_watching(std::shared_ptr<Watch> watch, Watched watched) {
  auto watcher = std::make_unique<Watcher>(std::move(watch), std::move(watched));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread{};
  const bool started = pthread_create(&thread, &attributes, &watch_thread, watcher.get()) == 0;
  pthread_attr_destroy(&attributes);
  if (started) {
    static_cast<void>(watcher.release());
  }
  return started;
}

}  // namespace einhorn::intercept
