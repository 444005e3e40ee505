#include "intercept/door.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "intercept/ask.h"
#include "os/door.h"
#include "os/linux/retry.h"

namespace einhorn::intercept {
namespace {

using interposed::Question;
using interposed::Reply;

constexpr std::size_t kMostUnread = 256;    // connections that have not asked yet
constexpr std::size_t kMostUnderWay = 128;  // answers on their threads
constexpr int kMostOfAWorker = 8;
constexpr std::size_t kStackBytes = 256 * 1024;

bool same(std::string_view left, std::string_view right) {
  unsigned differs = left.size() == right.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    differs |= static_cast<unsigned>(static_cast<unsigned char>(left[i] ^ right[i]));
  }
  return differs == 0;
}

void reply_with(int line, interposed::Verdict verdict, int error, int fd) {
  Reply reply{};
  std::memcpy(reply.magic, interposed::kQuestionMagic, sizeof(reply.magic));
  reply.verdict = verdict;
  reply.error = error;
  iovec part{&reply, sizeof(reply)};
  msghdr header{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  os::retry([&] { return sendmsg(line, &header, MSG_NOSIGNAL | MSG_DONTWAIT); });
}

// One question that was read and whose token was right.
struct Underway {
  os::UniqueFd line;
  os::UniqueFd socket;
  Asker asker;
  bool is_listen = false;
  int fd = -1;
  bool close_on_exec = false;
  SocketAddress address;
};

class DoorKeeper {
 public:
  DoorKeeper(std::shared_ptr<Watch> watch, os::UniqueFd door, std::string secret)
      : watch_(std::move(watch)), door_(std::move(door)), secret_(std::move(secret)) {}

  void run() {
    for (;;) {
      std::vector<pollfd> waiting{{watch_->leave, POLLIN, 0}, {door_.get(), POLLIN, 0}};
      for (const os::UniqueFd& line : unread_) {
        waiting.push_back({line.get(), POLLIN, 0});
      }
      if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) {
        return;
      }
      if (waiting[0].revents != 0) {
        return;  // whoever has not been answered asks the next one
      }
      std::deque<os::UniqueFd> rest;
      for (std::size_t i = 0; i < unread_.size(); ++i) {
        if (waiting[i + 2].revents != 0) {
          take_in(std::move(unread_[i]));
        } else {
          rest.push_back(std::move(unread_[i]));
        }
      }
      unread_ = std::move(rest);
      if (waiting[1].revents != 0) {
        accept_some();
      }
    }
  }

 private:
  struct Counts {
    std::mutex mutex;
    std::map<Epoch, int> of_worker;
    std::size_t all = 0;

    bool begin(Epoch worker) {
      const std::lock_guard lock(mutex);
      if (all >= kMostUnderWay || of_worker[worker] >= kMostOfAWorker) {
        return false;
      }
      ++of_worker[worker];
      ++all;
      return true;
    }
    void end(Epoch worker) {
      const std::lock_guard lock(mutex);
      --all;
      if (--of_worker[worker] <= 0) {
        of_worker.erase(worker);
      }
    }
  };
  struct Job {
    std::shared_ptr<Watch> watch;
    std::shared_ptr<Counts> counts;
    Underway underway;
  };

  void accept_some() {
    for (std::size_t i = 0; i < kMostUnread; ++i) {
      os::UniqueFd line(accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!line) {
        return;
      }
      if (unread_.size() >= kMostUnread) {
        unread_.pop_front();  // the one that has said nothing for the longest time
      }
      unread_.push_back(std::move(line));
    }
  }

  void take_in(os::UniqueFd line) {
    std::array<std::uint8_t, sizeof(Question) + kMaxAddressBytes + 1> bytes;
    iovec part{bytes.data(), bytes.size()};
    msghdr header{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> rights{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = rights.data();
    header.msg_controllen = rights.size();
    const ssize_t count =
        os::retry([&] { return recvmsg(line.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
    Underway underway;
    const cmsghdr* first = CMSG_FIRSTHDR(&header);
    if (first != nullptr && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(first), sizeof(number));
      underway.socket.reset(number);
    }
    if (count <= 0) {
      return;
    }
    const std::optional<AskedBy> asked =
        parse_question({bytes.data(), static_cast<std::size_t>(count)});
    if (!asked || !underway.socket ||
        !same(asked->token, os::door_token(secret_, asked->worker.value, asked->slot))) {
      reply_with(line.get(), interposed::kContinue, 0, -1);
      return;
    }
    underway.line = std::move(line);
    underway.asker = {asked->worker, asked->slot};
    underway.is_listen = asked->is_listen;
    underway.fd = asked->fd;
    underway.close_on_exec = asked->close_on_exec;
    underway.address = asked->address;
    start(std::move(underway));
  }

  // Its socket may make us wait. What finds no room is dropped: the library asks again.
  void start(Underway underway) {
    const Epoch worker = underway.asker.worker;
    if (!counts_->begin(worker)) {
      return;
    }
    auto job = std::make_unique<Job>(Job{watch_, counts_, std::move(underway)});
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread{};
    ++watch_->busy;
    if (pthread_create(&thread, &attributes, &answer_thread, job.get()) == 0) {
      static_cast<void>(job.release());
    } else {
      --watch_->busy;
      counts_->end(worker);
    }
    pthread_attr_destroy(&attributes);
  }

  static void* answer_thread(void* argument) {
    const std::unique_ptr<Job> job(static_cast<Job*>(argument));
    answer(*job->watch, job->underway);
    job->underway.line.reset();
    --job->watch->busy;
    job->counts->end(job->underway.asker.worker);
    return nullptr;
  }

  static void answer(const Watch& watch, Underway& asked) {
    Ask ask;
    ucred peer{};
    socklen_t length = sizeof(peer);
    getsockopt(asked.line.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length);
    ask.pid = peer.pid;
    ask.fd = asked.fd;
    ask.close_on_exec = asked.close_on_exec;
    ask.socket = std::move(asked.socket);
    ask.address = asked.address;
    describe_socket(ask);
    if (ask.domain < 0) {
      reply_with(asked.line.get(), interposed::kContinue, 0, -1);
      return;
    }
    make_absolute(ask.pid, ask.address);
    const Answer answer = asked.is_listen ? watch.desk.on_listen(asked.asker, ask)
                                          : watch.desk.on_bind(asked.asker, ask);
    switch (answer.kind) {
      case Answer::Kind::kContinue:
        reply_with(asked.line.get(), interposed::kContinue, 0, -1);
        return;
      case Answer::Kind::kDone:
        reply_with(asked.line.get(), interposed::kDone, 0, -1);
        return;
      case Answer::Kind::kError:
        reply_with(asked.line.get(), interposed::kError, answer.error, -1);
        return;
      case Answer::Kind::kShare: {
        const std::string epoll = find_in_epoll(ask.pid, ask.fd);
        reply_with(asked.line.get(), interposed::kShare, 0, answer.fd);
        watch.desk.handed(asked.asker, ask, answer.fd);
        if (!epoll.empty()) {
          tell_in_epoll(watch.reports, asked.asker, ask, epoll);
        }
        return;
      }
    }
  }

  std::shared_ptr<Watch> watch_;
  os::UniqueFd door_;
  std::string secret_;
  std::deque<os::UniqueFd> unread_;
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

void* door_thread(void* argument) {
  const std::unique_ptr<DoorKeeper> keeper(static_cast<DoorKeeper*>(argument));
  keeper->run();
  return nullptr;
}

}  // namespace

std::optional<AskedBy> parse_question(std::span<const std::uint8_t> bytes) {
  Question question;
  if (bytes.size() < sizeof(question)) {
    return std::nullopt;
  }
  std::memcpy(&question, bytes.data(), sizeof(question));
  if (std::memcmp(question.magic, interposed::kQuestionMagic, sizeof(question.magic)) != 0 ||
      question.length > kMaxAddressBytes || bytes.size() != sizeof(question) + question.length ||
      question.fd < 0 ||
      (question.call != interposed::kBind && question.call != interposed::kListen)) {
    return std::nullopt;
  }
  AskedBy asked;
  asked.worker = Epoch{question.epoch};
  asked.slot = question.slot;
  asked.token = {reinterpret_cast<const char*>(bytes.data()) + offsetof(Question, token),
                 sizeof(question.token)};
  asked.is_listen = question.call == interposed::kListen;
  asked.fd = question.fd;
  asked.close_on_exec = question.close_on_exec != 0;
  asked.address = decode_address(bytes.subspan(sizeof(question)));
  return asked;
}

bool open_for_questions(std::shared_ptr<Watch> watch, os::UniqueFd door, std::string secret) {
  auto keeper = std::make_unique<DoorKeeper>(std::move(watch), std::move(door), std::move(secret));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread{};
  const bool started = pthread_create(&thread, &attributes, &door_thread, keeper.get()) == 0;
  pthread_attr_destroy(&attributes);
  if (started) {
    static_cast<void>(keeper.release());
  }
  return started;
}

}  // namespace einhorn::intercept
