// What every Kernel keeps to, whichever it is: a suite over a factory. A program that includes this
// file instantiates it with its own kernel:
//
//   INSTANTIATE_TEST_SUITE_P(Linux, KernelContract, ::testing::Values(&make_linux_world));
//
// The real one: tests/unit/os_kernel_linux_test.cpp. The simulated one:
// tests/sim/kernel_contract_test.cpp. Not in here, and tested with the real one alone, is what
// the simulated machine does not have: files with their links and permissions (remove_file,
// open_log, resolve_directory, find_program), what the inside of a child sees (its directory,
// environment, descriptors, priority, signal mask), and which program a process executes.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/kernel.h"

namespace einhorn::os::contract {

using Kind = Transfer::Kind;

// A kernel and what there is around it that the kernel's verbs do not make.
class World {
 public:
  virtual ~World() = default;
  virtual Kernel& kernel() = 0;
  // Nonblocking descriptors; the caller's to close.
  virtual std::pair<int, int> stream_pair() = 0;
  virtual std::pair<int, int> packet_pair() = 0;  // messages, in order, with descriptors
  virtual std::pair<int, int> pipe() = 0;         // read end, write end
  virtual int listener() = 0;
  virtual int connect(int listener) = 0;  // a client; it need not have been accepted
  // Programs.
  virtual SpawnSpec exits_with(int code) = 0;
  virtual SpawnSpec waits_for_ever() = 0;  // ends by a signal only
  virtual SpawnSpec does_not_exist() = 0;
};

class KernelContract : public ::testing::TestWithParam<std::unique_ptr<World> (*)()> {
 protected:
  static constexpr auto kPatience = std::chrono::seconds{10};

  KernelContract() : world_(GetParam()()) {}
  World& world() { return *world_; }
  Kernel& kernel() { return world_->kernel(); }

  // What is ready within that time.
  std::vector<Ready> wait(Duration patience = kPatience) {
    std::array<Ready, 16> ready;
    const std::size_t count = kernel().wait(ready, kernel().now() + patience);
    return {ready.begin(), ready.begin() + static_cast<std::ptrdiff_t>(count)};
  }
  std::string read_some(int fd) {
    std::array<char, 256> buffer{};
    const Transfer transfer = kernel().read(fd, buffer);
    EXPECT_EQ(transfer.kind, Kind::kDone);
    return {buffer.data(), transfer.bytes};
  }
  Kind read_kind(int fd) {
    std::array<char, 16> buffer{};
    return kernel().read(fd, buffer).kind;
  }
  Spawned spawn(SpawnSpec spec) {
    spec.sibling = false;
    Result<Spawned> spawned = kernel().spawn(spec);
    EXPECT_TRUE(spawned.has_value()) << (spawned ? "" : spawned.error().message());
    return spawned ? *spawned : Spawned{};
  }
  // Until it is dead; it is not reaped.
  void wait_for_death(const Spawned& spawned) {
    EXPECT_TRUE(kernel().watch(spawned.pidfd, 77, {true, false}).has_value());
    EXPECT_EQ(wait().size(), 1u) << "it does not end";
    kernel().unwatch(spawned.pidfd);
  }
  // Its end, waited for.
  Ended end_of(const Spawned& spawned) {
    EXPECT_TRUE(kernel().watch(spawned.pidfd, 77, {true, false}).has_value());
    EXPECT_EQ(wait().size(), 1u) << "it does not end";
    kernel().unwatch(spawned.pidfd);
    const std::optional<Ended> ended = kernel().reap(spawned.pid);
    EXPECT_TRUE(ended.has_value());
    return ended.value_or(Ended{});
  }

 private:
  std::unique_ptr<World> world_;
};

// --- time and waiting ---------------------------------------------------------------------------
TEST_P(KernelContract, TimeGoesForwardAndNeverBack) {
  Instant last = kernel().now();
  for (int i = 0; i < 100; ++i) {
    const Instant now = kernel().now();
    EXPECT_GE(now, last);
    last = now;
  }
  EXPECT_GT(to_wall(last, kernel().wall_offset()).nanoseconds, 1'600'000'000'000'000'000)
      << "wall time is after 2020";
}

TEST_P(KernelContract, WaitingEndsAtTheDeadlineAndNotBefore) {
  const Instant deadline = kernel().now() + std::chrono::milliseconds{30};
  std::array<Ready, 4> ready;
  EXPECT_EQ(kernel().wait(ready, deadline), 0u);
  EXPECT_GE(kernel().now(), deadline);
  EXPECT_EQ(kernel().wait(ready, deadline), 0u) << "a deadline that has passed does not wait";
}

TEST_P(KernelContract, WaitingSaysWhatIsReadyByItsToken) {
  const auto [left, right] = world().stream_pair();
  ASSERT_TRUE(kernel().watch(left, 0xfeedULL << 32U, {true, false}).has_value());
  EXPECT_TRUE(wait(Duration::zero()).empty());
  ASSERT_EQ(kernel().write(right, "x").kind, Kind::kDone);
  const std::vector<Ready> ready = wait();
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].token, 0xfeedULL << 32U);
  EXPECT_TRUE(ready[0].readable);
  EXPECT_FALSE(ready[0].writable);
  EXPECT_EQ(wait(Duration::zero()).size(), 1u) << "as long as it is not read";
  EXPECT_EQ(read_some(left), "x");
  EXPECT_TRUE(wait(Duration::zero()).empty());
  kernel().close(left);
  kernel().close(right);
}

TEST_P(KernelContract, WatchingAgainChangesTokenAndInterest) {
  const auto [left, right] = world().stream_pair();
  ASSERT_TRUE(kernel().watch(left, 1, {true, false}).has_value());
  ASSERT_TRUE(kernel().watch(left, 2, {false, true}).has_value());
  const std::vector<Ready> ready = wait();
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].token, 2u);
  EXPECT_TRUE(ready[0].writable);
  kernel().unwatch(left);
  EXPECT_TRUE(wait(Duration::zero()).empty());
  kernel().unwatch(left);  // not watched: nothing
  kernel().close(left);
  kernel().close(right);
}

TEST_P(KernelContract, AVanishedPeerIsReadable) {
  const auto [left, right] = world().stream_pair();
  ASSERT_TRUE(kernel().watch(left, 5, {true, false}).has_value());
  kernel().close(right);
  const std::vector<Ready> ready = wait();
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_TRUE(ready[0].readable);
  EXPECT_EQ(read_kind(left), Kind::kClosed);
  kernel().close(left);
  EXPECT_TRUE(wait(Duration::zero()).empty()) << "what is closed is not watched any more";
}

TEST_P(KernelContract, WatchingNothingIsAnError) {
  EXPECT_FALSE(kernel().watch(9999, 1, {true, false}).has_value());
}

// --- bytes --------------------------------------------------------------------------------------
TEST_P(KernelContract, AcceptsWhoWaitsAndSaysWhoItIs) {
  const int listener = world().listener();
  const Result<Accepted> nobody = kernel().accept(listener);
  ASSERT_TRUE(nobody.has_value());
  EXPECT_EQ(nobody->fd, -1);
  ASSERT_TRUE(kernel().watch(listener, 8, {true, false}).has_value());
  const int client = world().connect(listener);
  ASSERT_EQ(wait().size(), 1u);
  const Result<Accepted> somebody = kernel().accept(listener);
  ASSERT_TRUE(somebody.has_value());
  ASSERT_GE(somebody->fd, 0);
  EXPECT_EQ(somebody->peer.pid, kernel().own_pid());
  EXPECT_EQ(somebody->peer.uid, kernel().own_uid());
  EXPECT_EQ(read_kind(somebody->fd), Kind::kWouldBlock) << "it is nonblocking";
  EXPECT_EQ(kernel().write(client, "hello").bytes, 5u);
  EXPECT_EQ(read_some(somebody->fd), "hello");
  EXPECT_EQ(kernel().accept(listener)->fd, -1);
  kernel().close(client);
  EXPECT_EQ(read_kind(somebody->fd), Kind::kClosed);
  kernel().close(somebody->fd);
  kernel().close(listener);
}

TEST_P(KernelContract, ReadsAndWritesAsMuchAsGoes) {
  const auto [left, right] = world().stream_pair();
  EXPECT_EQ(read_kind(left), Kind::kWouldBlock);
  const std::string big(1U << 16U, 'x');
  std::size_t written = 0;
  for (int i = 0; i < 10'000; ++i) {
    const Transfer transfer = kernel().write(left, big);
    if (transfer.kind != Kind::kDone) {
      EXPECT_EQ(transfer.kind, Kind::kWouldBlock);
      break;
    }
    written += transfer.bytes;
  }
  EXPECT_GT(written, 0u);
  std::size_t read = 0;
  std::string buffer(1U << 16U, '\0');
  for (;;) {
    const Transfer transfer = kernel().read(right, buffer);
    if (transfer.kind != Kind::kDone) {
      EXPECT_EQ(transfer.kind, Kind::kWouldBlock);
      break;
    }
    read += transfer.bytes;
  }
  EXPECT_EQ(read, written);
  kernel().close(right);
  EXPECT_EQ(kernel().write(left, "x").kind, Kind::kClosed) << "and no signal";
  kernel().close(left);
}

TEST_P(KernelContract, MessagesKeepTheirBoundsAndBringDescriptors) {
  const auto [left, right] = world().packet_pair();
  const auto [inner, outer] = world().stream_pair();
  EXPECT_EQ(kernel().receive(right).kind, Kind::kWouldBlock);
  const std::array<int, 2> fds = {inner, inner};
  ASSERT_EQ(kernel().send(left, "first", {}).kind, Kind::kDone);
  ASSERT_EQ(kernel().send(left, "second\nline", fds).kind, Kind::kDone);
  kernel().close(inner);
  const Message first = kernel().receive(right);
  EXPECT_EQ(first.kind, Kind::kDone);
  EXPECT_EQ(first.text, "first");
  EXPECT_TRUE(first.fds.empty());
  const Message second = kernel().receive(right);
  EXPECT_EQ(second.text, "second\nline");
  ASSERT_EQ(second.fds.size(), 2u);
  ASSERT_EQ(kernel().write(second.fds[1], "through").kind, Kind::kDone);
  EXPECT_EQ(read_some(outer), "through") << "it is the same socket";
  kernel().close(second.fds[0]);
  EXPECT_EQ(read_kind(outer), Kind::kWouldBlock) << "one of them is still open";
  kernel().close(second.fds[1]);
  EXPECT_EQ(read_kind(outer), Kind::kClosed);
  kernel().close(left);
  EXPECT_EQ(kernel().receive(right).kind, Kind::kClosed);
  EXPECT_EQ(kernel().send(right, "x", {}).kind, Kind::kClosed);
  kernel().close(right);
  kernel().close(outer);
}

TEST_P(KernelContract, AStreamBringsDescriptorsToo) {
  const auto [left, right] = world().stream_pair();
  const auto [inner, outer] = world().stream_pair();
  EXPECT_EQ(kernel().receive(right).kind, Kind::kWouldBlock);
  ASSERT_EQ(kernel().send(left, "names\n", std::array{inner}).kind, Kind::kDone);
  kernel().close(inner);
  const Message message = kernel().receive(right);
  EXPECT_EQ(message.kind, Kind::kDone);
  EXPECT_EQ(message.text, "names\n");
  ASSERT_EQ(message.fds.size(), 1u);
  ASSERT_EQ(kernel().write(message.fds[0], "through").kind, Kind::kDone);
  EXPECT_EQ(read_some(outer), "through");
  kernel().close(left);
  EXPECT_EQ(kernel().receive(right).kind, Kind::kClosed);
  for (const int fd : {right, outer, message.fds[0]}) {
    kernel().close(fd);
  }
}

TEST_P(KernelContract, APeekedMessageStaysAndNamesItsSender) {
  const Result<std::pair<int, int>> pair = kernel().socket_pair();
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(kernel().peek(pair->first).kind, Kind::kWouldBlock);
  ASSERT_TRUE(kernel().ask_for_senders(pair->first).has_value());
  ASSERT_EQ(kernel().send(pair->second, "here", {}).kind, Kind::kDone);
  for (int i = 0; i < 2; ++i) {
    const Message seen = kernel().peek(pair->first);
    EXPECT_EQ(seen.kind, Kind::kDone);
    EXPECT_EQ(seen.text, "here");
    EXPECT_EQ(seen.sender.pid, kernel().own_pid());
  }
  EXPECT_EQ(kernel().receive(pair->first).text, "here");
  EXPECT_EQ(kernel().peek(pair->first).kind, Kind::kWouldBlock);
  kernel().close(pair->second);
  EXPECT_EQ(kernel().peek(pair->first).kind, Kind::kClosed);
  kernel().close(pair->first);
}

TEST_P(KernelContract, SocketPairsCarryMessages) {
  const Result<std::pair<int, int>> pair = kernel().socket_pair();
  ASSERT_TRUE(pair.has_value());
  ASSERT_EQ(kernel().send(pair->first, "one", {}).kind, Kind::kDone);
  ASSERT_EQ(kernel().send(pair->first, "two", {}).kind, Kind::kDone);
  EXPECT_EQ(kernel().receive(pair->second).text, "one");
  EXPECT_EQ(kernel().receive(pair->second).text, "two");
  EXPECT_EQ(kernel().receive(pair->second).kind, Kind::kWouldBlock);
  // What was said before the end is still heard.
  ASSERT_EQ(kernel().send(pair->first, "last", {}).kind, Kind::kDone);
  kernel().close(pair->first);
  EXPECT_EQ(kernel().receive(pair->second).text, "last");
  EXPECT_EQ(kernel().receive(pair->second).kind, Kind::kClosed);
  kernel().close(pair->second);
}

TEST_P(KernelContract, SendingToAFullSocketWouldBlock) {
  const auto [left, right] = world().packet_pair();
  const std::string message(1000, 'm');
  std::size_t sent = 0;
  Kind kind = Kind::kDone;
  while (kind == Kind::kDone && sent < 1'000'000) {
    kind = kernel().send(left, message, {}).kind;
    sent += kind == Kind::kDone ? 1 : 0;
  }
  EXPECT_EQ(kind, Kind::kWouldBlock);
  std::size_t received = 0;
  while (kernel().receive(right).kind == Kind::kDone) {
    ++received;
  }
  EXPECT_EQ(received, sent) << "none is lost";
  kernel().close(left);
  kernel().close(right);
}

TEST_P(KernelContract, RaisedDescriptorsAreTheSameUnderAHigherNumber) {
  const auto [left, right] = world().stream_pair();
  const Result<int> raised = kernel().raise(left, 60);
  ASSERT_TRUE(raised.has_value());
  EXPECT_GE(*raised, 60);
  ASSERT_EQ(kernel().write(*raised, "up").kind, Kind::kDone);
  EXPECT_EQ(read_some(right), "up");
  kernel().close(*raised);
  EXPECT_EQ(read_kind(right), Kind::kClosed) << "the old number was closed";
  kernel().close(right);
  EXPECT_FALSE(kernel().raise(9999, 10).has_value());
}

TEST_P(KernelContract, ALineToAFullPipeIsNotWaitedFor) {
  const auto [out, in] = world().pipe();
  const std::string line(500, 'l');
  std::size_t written = 0;
  Kind kind = Kind::kDone;
  while (kind == Kind::kDone && written < 100'000'000) {
    const Transfer transfer = kernel().write_line(in, line);
    kind = transfer.kind;
    if (kind == Kind::kDone) {
      ASSERT_EQ(transfer.bytes, line.size()) << "a line is whole or not at all";
      written += transfer.bytes;
    }
  }
  EXPECT_EQ(kind, Kind::kWouldBlock);
  EXPECT_EQ(written % line.size(), 0u);
  kernel().close(out);
  kernel().close(in);
}

// --- memory files -------------------------------------------------------------------------------
TEST_P(KernelContract, MemoryFilesKeepWhatIsWrittenWhere) {
  const Result<int> file = kernel().create_memory("contract");
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(*kernel().read_all(*file), "");
  ASSERT_TRUE(kernel().write_at(*file, 4, "abc").has_value());
  ASSERT_TRUE(kernel().write_at(*file, 5, "XY").has_value());
  EXPECT_EQ(*kernel().read_all(*file), std::string("\0\0\0\0aXY", 7));
  kernel().close(*file);
  EXPECT_FALSE(kernel().write_at(*file, 0, "x").has_value());
  EXPECT_FALSE(kernel().read_all(*file).has_value());
}

TEST_P(KernelContract, TheNoteIsTheFirstPageOfItsFile) {
  const Result<int> file = kernel().create_memory("contract");
  ASSERT_TRUE(file.has_value());
  const Result<SpawnNote*> note = kernel().map_note(*file);
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ((*note)->epoch, 0u);
  EXPECT_EQ((*note)->pid, 0);
  EXPECT_EQ(kernel().read_all(*file)->size(), 4096u);
  (*note)->epoch = 0x1122334455667788ULL;
  (*note)->slot = 7;
  ASSERT_TRUE(kernel().write_at(*file, 4096, "journal").has_value());
  kernel().unmap_note(*note);
  const Result<SpawnNote*> again = kernel().map_note(*file);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ((*again)->epoch, 0x1122334455667788ULL);
  EXPECT_EQ((*again)->slot, 7);
  EXPECT_EQ(kernel().read_all(*file)->substr(4096), "journal") << "mapping changes nothing";
  kernel().unmap_note(*again);
  kernel().close(*file);
}

// --- processes ----------------------------------------------------------------------------------
TEST_P(KernelContract, AProcessEndsAndIsReapedOnce) {
  const Spawned spawned = spawn(world().exits_with(3));
  ASSERT_GT(spawned.pid, 0);
  ASSERT_GE(spawned.pidfd, 0);
  EXPECT_FALSE(spawned.failed.has_value());
  const Ended ended = end_of(spawned);
  EXPECT_EQ(ended.code, CLD_EXITED);
  EXPECT_EQ(ended.status, 3);
  EXPECT_TRUE(kernel().is_dead(spawned.pidfd));
  EXPECT_FALSE(kernel().reap(spawned.pid).has_value());
  EXPECT_FALSE(kernel().signal(spawned.pidfd, spawned.pid, SIGTERM, false)) << "it is gone";
  EXPECT_FALSE(kernel().open_process(spawned.pid, 0).has_value());
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, AProcessIsSignalledByItsDescriptor) {
  for (const bool group : {false, true}) {
    const Spawned spawned = spawn(world().waits_for_ever());
    EXPECT_FALSE(kernel().is_dead(spawned.pidfd));
    EXPECT_FALSE(kernel().reap(spawned.pid).has_value());
    EXPECT_TRUE(kernel().signal(spawned.pidfd, spawned.pid, SIGTERM, group));
    const Ended ended = end_of(spawned);
    EXPECT_EQ(ended.code, CLD_KILLED);
    EXPECT_EQ(ended.status, SIGTERM);
    kernel().close(spawned.pidfd);
  }
}

TEST_P(KernelContract, ADeadProcessIsThereUntilItIsReaped) {
  const Spawned spawned = spawn(world().exits_with(0));
  ASSERT_TRUE(kernel().watch(spawned.pidfd, 1, {true, false}).has_value());
  ASSERT_EQ(wait().size(), 1u);
  EXPECT_TRUE(kernel().is_dead(spawned.pidfd));
  EXPECT_EQ(kernel().parent_of(spawned.pid), kernel().own_pid());
  const std::optional<int> opened = kernel().open_process(spawned.pid, kernel().own_pid());
  ASSERT_TRUE(opened.has_value()) << "its pid is its own until then";
  EXPECT_TRUE(kernel().is_dead(*opened));
  EXPECT_TRUE(kernel().reap(spawned.pid).has_value());
  kernel().close(*opened);
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, WhatIsMeasuredOfAProcessIsWhatWasAskedFor) {
  const Spawned spawned = spawn(world().waits_for_ever());
  const auto all = kernel().measure(spawned.pid, {true, true, true, true, true});
  ASSERT_TRUE(all.has_value());
  // Of one that has just begun the kernel's own count may still be 0.
  EXPECT_TRUE(all->resident_bytes.has_value());
  EXPECT_GT(all->proportional_bytes.value_or(0), 0U);
  EXPECT_GE(all->cpu.value_or(-std::chrono::seconds{1}), Duration::zero());
  EXPECT_LT(all->cpu.value_or(std::chrono::minutes{1}), std::chrono::seconds{30});
  EXPECT_GE(all->descriptors.value_or(0), 3U);
  EXPECT_EQ(all->threads.value_or(0), 1U);
  const auto little = kernel().measure(spawned.pid, {.resident = true});
  ASSERT_TRUE(little.has_value());
  EXPECT_TRUE(little->resident_bytes.has_value());
  EXPECT_FALSE(little->proportional_bytes || little->cpu || little->descriptors || little->threads);
  EXPECT_TRUE(kernel().signal(spawned.pidfd, spawned.pid, SIGKILL, false));
  wait_for_death(spawned);
  EXPECT_FALSE(kernel().measure(spawned.pid, {.resident = true}).has_value()) << "it is dead";
  EXPECT_FALSE(kernel().measure(spawned.pid, {.cpu = true}).has_value());
  EXPECT_EQ(end_of(spawned).status, SIGKILL);
  EXPECT_FALSE(kernel().measure(spawned.pid, {.resident = true}).has_value()) << "it is gone";
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, AListenersQueueIsTheConnectionsThatNobodyAccepted) {
  const int listener = world().listener();
  const auto waiting = [&] {
    const std::optional<AcceptQueue> queue = kernel().accept_queue(listener);
    EXPECT_TRUE(queue.has_value());
    return queue ? queue->waiting : 99;
  };
  EXPECT_EQ(waiting(), 0U);
  const int first = world().connect(listener);
  const int second = world().connect(listener);
  EXPECT_EQ(waiting(), 2U);
  EXPECT_GE(kernel().accept_queue(listener)->limit, 2U);
  const Result<Accepted> accepted = kernel().accept(listener);
  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(waiting(), 1U);
  const auto [left, right] = world().stream_pair();
  EXPECT_FALSE(kernel().accept_queue(left).has_value()) << "it listens to nobody";
  for (const int fd : {accepted->fd, first, second, left, right, listener}) {
    kernel().close(fd);
  }
}

TEST_P(KernelContract, AProcessIsOpenedOnlyIfItIsThatParentsChild) {
  const Spawned spawned = spawn(world().waits_for_ever());
  const std::optional<int> mine = kernel().open_process(spawned.pid, kernel().own_pid());
  ASSERT_TRUE(mine.has_value());
  EXPECT_FALSE(kernel().open_process(spawned.pid, 1).has_value());
  EXPECT_EQ(kernel().parent_of(spawned.pid), kernel().own_pid());
  EXPECT_TRUE(kernel().runs_as(spawned.pid, kernel().own_uid()));
  EXPECT_FALSE(kernel().runs_as(spawned.pid, kernel().own_uid() + 54321));
  ASSERT_TRUE(kernel().memory_of(spawned.pid).has_value());
  ASSERT_TRUE(kernel().cpu_time_of(spawned.pid).has_value());
  EXPECT_TRUE(kernel().signal(*mine, spawned.pid, SIGKILL, false));
  EXPECT_EQ(end_of(spawned).status, SIGKILL);
  EXPECT_EQ(kernel().parent_of(spawned.pid), 0);
  EXPECT_FALSE(kernel().memory_of(spawned.pid).has_value());
  EXPECT_FALSE(kernel().cpu_time_of(spawned.pid).has_value());
  kernel().close(*mine);
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, AFailedExecIsKnownAtOnceAndStillHasToBeReaped) {
  SpawnSpec spec = world().does_not_exist();
  const Spawned spawned = spawn(spec);
  ASSERT_TRUE(spawned.failed.has_value());
  EXPECT_EQ(spawned.failed->code, ENOENT);
  EXPECT_EQ(spawned.failed->message(), "exec " + spec.program + ": No such file or directory");
  ASSERT_GT(spawned.pid, 0);
  const Ended ended = end_of(spawned);
  EXPECT_EQ(ended.code, CLD_EXITED);
  EXPECT_EQ(ended.status, 127);
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, ArgumentsThatAreTooLongFailAtTheExec) {
  SpawnSpec spec = world().exits_with(0);
  spec.arguments.emplace_back(std::size_t{1} << 20U, 'x');
  const Spawned spawned = spawn(spec);
  ASSERT_TRUE(spawned.failed.has_value());
  EXPECT_EQ(spawned.failed->code, E2BIG);
  EXPECT_EQ(end_of(spawned).status, 127);
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, AProcessThatIsDeadAlreadyIsReadyAtOnce) {
  const Spawned spawned = spawn(world().exits_with(1));
  ASSERT_TRUE(kernel().watch(spawned.pidfd, 4, {true, false}).has_value());
  ASSERT_EQ(wait().size(), 1u);
  kernel().unwatch(spawned.pidfd);
  ASSERT_TRUE(kernel().watch(spawned.pidfd, 5, {true, false}).has_value());
  const std::vector<Ready> again = wait(Duration::zero());
  ASSERT_EQ(again.size(), 1u) << "it is not told once only";
  EXPECT_EQ(again[0].token, 5u);
  EXPECT_TRUE(kernel().reap(spawned.pid).has_value());
  EXPECT_EQ(wait(Duration::zero()).size(), 1u) << "also after it was reaped";
  kernel().close(spawned.pidfd);
}

TEST_P(KernelContract, NothingIsWrittenToWhatIsGone) {
  const Result<int> file = kernel().create_memory("contract");
  ASSERT_TRUE(file.has_value());
  kernel().close(*file);
  EXPECT_FALSE(kernel().map_note(*file).has_value());
  EXPECT_FALSE(kernel().watch(*file, 1, {true, false}).has_value());
}

TEST_P(KernelContract, TheKernelWritesThePidIntoTheNote) {
  const Result<int> file = kernel().create_memory("contract");
  const Result<SpawnNote*> note = kernel().map_note(*file);
  ASSERT_TRUE(note.has_value());
  for (const bool works : {true, false}) {
    SpawnSpec spec = works ? world().exits_with(0) : world().does_not_exist();
    spec.note = *note;
    (*note)->pid = 0;
    const Spawned spawned = spawn(spec);
    EXPECT_EQ((*note)->pid, spawned.pid);
    end_of(spawned);
    kernel().close(spawned.pidfd);
  }
  kernel().unmap_note(*note);
  kernel().close(*file);
}

TEST_P(KernelContract, NobodyIsSignalledByAPidThatMeansEverybody) {
  EXPECT_FALSE(kernel().signal(-1, 0, SIGTERM, false));
  EXPECT_FALSE(kernel().signal(-1, -1, SIGTERM, false));
  EXPECT_FALSE(kernel().signal(-1, 1, SIGTERM, true));
  EXPECT_FALSE(kernel().reap(2'000'000'000).has_value());
  EXPECT_EQ(kernel().parent_of(2'000'000'000), 0);
  EXPECT_FALSE(kernel().runs_as(2'000'000'000, kernel().own_uid()));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KernelContract);

}  // namespace einhorn::os::contract
