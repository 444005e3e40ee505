// The ledger: which connections are in a worker's hands, in a file that outlives it.
//
// Every thread that accepts has a slot, and writes into it whose connection it holds; the file is
// mapped, so what was written stays when the worker is killed at any instruction. A worker that
// leaves in order removes its file: a file whose worker is gone belongs to one that was killed, and
// its slots say what it took with it. Read by tests/gameday/ledger.py, which knows this layout.
//
// Between the kernel's accept() and the note there are a few instructions; a thread killed there
// leaves `accepting` behind, so at most one connection a thread is without a name. That state is
// only entered when the socket was seen readable, and therefore needs a socket that does not block.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace ledger {

enum State : std::uint32_t { kIdle = 0, kAccepting = 1, kHolding = 2 };

struct Header {
  char magic[8];
  std::uint32_t slots;
  std::int32_t pid;
  char rest[48];
};

struct alignas(64) Slot {
  std::atomic<std::uint32_t> state;
  std::uint32_t address;     // of the client, IPv4, network byte order
  std::uint16_t port;        // of the client, network byte order
  std::uint16_t reserved;    //
  std::uint32_t requests;    // answered on this connection
  std::int64_t accepted_ns;  // CLOCK_MONOTONIC
};
static_assert(sizeof(Header) == 64 && sizeof(Slot) == 64);

inline std::int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
}

class Ledger {
 public:
  // Does nothing if `directory` is "".
  void open(const std::string& directory, std::size_t slots) {
    if (directory.empty()) return;
    std::string path = directory + "/" + std::to_string(getpid()) + "-" + std::to_string(now_ns());
    std::string unfinished = directory + "/." + std::to_string(getpid());
    int fd = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    std::size_t size = sizeof(Header) + slots * sizeof(Slot);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) fail();
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail();
    close(fd);
    auto* header = static_cast<Header*>(memory);
    std::snprintf(header->magic, sizeof header->magic, "LEDGER1");
    header->slots = static_cast<std::uint32_t>(slots);
    header->pid = getpid();
    slots_ = reinterpret_cast<Slot*>(header + 1);
    count_ = slots;
    if (rename(unfinished.c_str(), path.c_str()) != 0) fail();
    path_ = path;
  }

  // The slot of a thread; null if there is no ledger.
  Slot* slot(std::size_t index) { return index < count_ ? &slots_[index] : nullptr; }

  // For a worker that leaves in order, with nothing in its hands.
  void remove() {
    if (!path_.empty()) unlink(path_.c_str());
  }

 private:
  [[noreturn]] static void fail() {
    std::perror("ledger");
    std::exit(64);
  }

  std::string path_;
  Slot* slots_ = nullptr;
  std::size_t count_ = 0;
};

inline void hold(Slot* slot, const sockaddr_in& client) {
  slot->address = client.sin_addr.s_addr;
  slot->port = client.sin_port;
  slot->requests = 0;
  slot->accepted_ns = now_ns();
  slot->state.store(kHolding, std::memory_order_release);
}

}  // namespace ledger
