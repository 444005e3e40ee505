// What descriptors refer to in the simulated kernel.
//
// A File is an open file description: descriptor tables, messages on their way and the guard's
// store share it, and when the last of them lets go it is closed, which its other end notices. Each
// one is counted in a Census, so that a descriptor that nobody closes is found.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "os/kernel.h"

namespace einhorn::sim {

enum class FileKind { kStream, kListener, kService, kPacket, kDatagram, kMemory, kLog, kPidfd };
inline constexpr std::size_t kFileKinds = 8;
[[nodiscard]] std::string_view name(FileKind kind);

// How many open files there are of each kind.
class Census {
 public:
  void add(FileKind kind) { ++counts_.at(static_cast<std::size_t>(kind)); }
  void remove(FileKind kind) { --counts_.at(static_cast<std::size_t>(kind)); }
  [[nodiscard]] int of(FileKind kind) const { return counts_.at(static_cast<std::size_t>(kind)); }

 private:
  std::array<int, kFileKinds> counts_{};
};

class File {
 public:
  File(Census& census, FileKind kind) : census_(census), kind_(kind) { census_.add(kind_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() { census_.remove(kind_); }

  [[nodiscard]] FileKind kind() const { return kind_; }
  [[nodiscard]] virtual bool readable() const { return false; }
  [[nodiscard]] virtual bool writable() const { return true; }

 private:
  Census& census_;
  FileKind kind_;
};
using FilePtr = std::shared_ptr<File>;

// --- streams: connections to the command socket
// ---------------------------------------------------
struct Pipe {
  std::string bytes;
  std::size_t capacity = 65536;
  bool writer_gone = false;
  bool reader_gone = false;
};

class Stream final : public File {
 public:
  Stream(Census& census, std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out, os::Peer peer)
      : File(census, FileKind::kStream), in_(std::move(in)), out_(std::move(out)), peer_(peer) {}
  ~Stream() override;

  // Two connected ends; `peer` is who holds the first one, as the second one's reader sees it.
  static std::pair<std::shared_ptr<Stream>, std::shared_ptr<Stream>> pair(Census& census,
                                                                          os::Peer peer,
                                                                          std::size_t capacity);

  [[nodiscard]] bool readable() const override { return !in_->bytes.empty() || in_->writer_gone; }
  [[nodiscard]] bool writable() const override {
    return out_->bytes.size() < out_->capacity || out_->reader_gone;
  }
  os::Transfer read(std::size_t most, std::string& into);
  os::Transfer write(std::string_view bytes);
  [[nodiscard]] os::Peer peer() const { return peer_; }
  [[nodiscard]] bool other_end_gone() const { return out_->reader_gone; }
  // What waits to be read ends in the middle of a line.
  [[nodiscard]] bool mid_line() const { return !in_->bytes.empty() && in_->bytes.back() != '\n'; }

 private:
  std::shared_ptr<Pipe> in_;
  std::shared_ptr<Pipe> out_;
  os::Peer peer_;
};

// The command socket. What was connected and not accepted waits here.
class Listener final : public File {
 public:
  explicit Listener(Census& census) : File(census, FileKind::kListener) {}
  [[nodiscard]] bool readable() const override { return !waiting.empty(); }

  static constexpr std::size_t kBacklog = 100;
  std::deque<std::shared_ptr<Stream>> waiting;
};

// A socket of the user's program: only its life matters.
class Service final : public File {
 public:
  Service(Census& census, std::uint32_t number) : File(census, FileKind::kService), index(number) {}
  const std::uint32_t index;
};

// --- sequenced packets: guard and master
// ----------------------------------------------------------
struct Packet {
  std::string text;
  std::vector<FilePtr> files;
};
struct PacketQueue {
  std::deque<Packet> packets;
  std::size_t capacity = 1000;
  bool writer_gone = false;
  bool reader_gone = false;
};

class PacketEnd final : public File {
 public:
  PacketEnd(Census& census, std::shared_ptr<PacketQueue> in, std::shared_ptr<PacketQueue> out)
      : File(census, FileKind::kPacket), in_(std::move(in)), out_(std::move(out)) {}
  ~PacketEnd() override;
  static std::pair<std::shared_ptr<PacketEnd>, std::shared_ptr<PacketEnd>> pair(
      Census& census, std::size_t capacity);

  [[nodiscard]] bool readable() const override { return !in_->packets.empty() || in_->writer_gone; }
  [[nodiscard]] bool writable() const override {
    return out_->packets.size() < out_->capacity || out_->reader_gone;
  }
  // Kind kWouldBlock: nothing there; kClosed: the other end is gone and all is read.
  os::Transfer::Kind receive(Packet& into);
  os::Transfer::Kind send(Packet packet);

 private:
  std::shared_ptr<PacketQueue> in_;
  std::shared_ptr<PacketQueue> out_;
};

// --- the rest
// -------------------------------------------------------------------------------------
struct Datagram {
  std::string text;
  os::Peer sender;
};
class DatagramSocket final : public File {
 public:
  explicit DatagramSocket(Census& census) : File(census, FileKind::kDatagram) {}
  [[nodiscard]] bool readable() const override { return !waiting.empty(); }

  static constexpr std::size_t kMost = 200;
  std::deque<Datagram> waiting;
};

class Memory final : public File {
 public:
  explicit Memory(Census& census) : File(census, FileKind::kMemory) {}
  [[nodiscard]] std::string content() const;
  void write(std::uint64_t offset, std::string_view bytes);

  static constexpr std::size_t kPage = 4096;
  os::SpawnNote note;               // the beginning of the first page
  std::string rest;                 // what is behind that page
  std::uint64_t written_after = 0;  // how many writes had failed when it was written as a whole
};

class LogFile final : public File {
 public:
  explicit LogFile(Census& census) : File(census, FileKind::kLog) {}
};

struct Process;
class Pidfd final : public File {
 public:
  Pidfd(Census& census, std::shared_ptr<Process> of)
      : File(census, FileKind::kPidfd), process(std::move(of)) {}
  [[nodiscard]] bool readable() const override;
  const std::shared_ptr<Process> process;
};

}  // namespace einhorn::sim
