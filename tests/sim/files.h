// What descriptors refer to in the simulated kernel.
//
// A File is an open file description: descriptor tables, messages on their way and the guard's
// store share it, and when the last of them lets go it is closed, which its other end notices. Each
// one is counted in a Census, so that a descriptor that nobody closes is found.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "os/kernel.h"

namespace einhorn::sim {

enum class FileKind {
  kStream,
  kListener,
  kService,
  kPacket,
  kDatagram,
  kMemory,
  kLog,
  kPidfd,
  kProgram,
  kOutput,
  kNotify,
  kForm
};
inline constexpr std::size_t kFileKinds = 12;
[[nodiscard]] std::string_view name(FileKind kind);

// How many open files there are of each kind.
class Census {
 public:
  void add(FileKind kind) { ++counts_.at(static_cast<std::size_t>(kind)); }
  void remove(FileKind kind) { --counts_.at(static_cast<std::size_t>(kind)); }
  [[nodiscard]] std::uint64_t next_number() { return ++opened_; }
  [[nodiscard]] int of(FileKind kind) const { return counts_.at(static_cast<std::size_t>(kind)); }

 private:
  std::array<int, kFileKinds> counts_{};
  std::uint64_t opened_ = 0;
};

class File {
 public:
  File(Census& census, FileKind kind)
      : census_(census), kind_(kind), number_(census.next_number()) {
    census_.add(kind_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() { census_.remove(kind_); }

  [[nodiscard]] FileKind kind() const { return kind_; }
  // Later ones have higher numbers.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] virtual bool readable() const { return false; }
  [[nodiscard]] virtual bool writable() const { return true; }

 private:
  Census& census_;
  FileKind kind_;
  std::uint64_t number_;
};
using FilePtr = std::shared_ptr<File>;

// --- streams: connections to the command socket
// ---------------------------------------------------
struct Pipe {
  std::string bytes;
  std::vector<FilePtr> files;  // on their way together with the bytes
  std::size_t capacity = 65536;
  bool writer_gone = false;
  bool reader_gone = false;
  bool accepted = false;
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
  // How much can be written at once.
  [[nodiscard]] std::size_t room() const {
    return out_->reader_gone ? 0 : out_->capacity - std::min(out_->capacity, out_->bytes.size());
  }
  // With bytes that are all written, or none.
  os::Transfer send(std::string_view bytes, std::vector<FilePtr> files);
  void accept() { in_->accepted = true; }
  // By those at the other end: somebody has it, and it is open.
  [[nodiscard]] bool is_accepted() const { return out_->accepted && !out_->reader_gone; }
  // What came along with what was read.
  std::vector<FilePtr> take_files() { return std::exchange(in_->files, {}); }
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
  os::Peer sender{};
  WorkerId asked_for{};  // of what a master asks a zygote
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
  [[nodiscard]] const Packet* next() const {  // null: nothing there
    return in_->packets.empty() ? nullptr : &in_->packets.front();
  }
  os::Transfer::Kind send(Packet packet);
  // What was sent and is not received yet.
  [[nodiscard]] const std::shared_ptr<PacketQueue>& sent() const { return out_; }

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

// A memory file. Its first page is the note that may be mapped, so it has one address for ever.
class Memory final : public File {
 public:
  explicit Memory(Census& census) : File(census, FileKind::kMemory) {}
  [[nodiscard]] std::string content() const;
  void write(std::uint64_t offset, std::string_view bytes);
  os::SpawnNote* map();
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::uint64_t writes() const { return writes_; }

  static constexpr std::size_t kPage = 4096;
  bool snapshot = true;             // false: made for something else
  std::uint64_t written_after = 0;  // how many writes had failed when it was written as a whole
  std::size_t fresh = 0;            // bytes of the journal when it was written anew

 private:
  struct Page {
    os::SpawnNote note;
    std::array<char, kPage - sizeof(os::SpawnNote)> tail{};
  };
  static_assert(sizeof(Page) == kPage);

  Page page_;
  std::string rest_;  // what is behind that page
  std::size_t size_ = 0;
  std::uint64_t writes_ = 0;
};

// Control groups by their directories, and how many processes are in each.
using Groups = std::map<std::string, int>;

// A process in one of them. One that has been removed is not missed.
class Membership {
 public:
  Membership(Groups& groups, std::string directory)
      : groups_(groups), directory_(std::move(directory)) {
    ++groups_[directory_];
  }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;
  [[nodiscard]] const std::string& directory() const { return directory_; }
  ~Membership() {
    if (const auto found = groups_.find(directory_); found != groups_.end()) {
      --found->second;
    }
  }

 private:
  Groups& groups_;
  std::string directory_;
};

// A worker's standard output or error: who holds its ends is all that matters.
class OutputEnd final : public File {
 public:
  struct Ends {
    int writers = 0;
    int readers = 0;
  };
  OutputEnd(Census& census, std::shared_ptr<Ends> ends, bool writer)
      : File(census, FileKind::kOutput), ends_(std::move(ends)), writer_(writer) {
    ++(writer_ ? ends_->writers : ends_->readers);
  }
  ~OutputEnd() override { --(writer_ ? ends_->writers : ends_->readers); }
  // Nobody can write to it any more, and whoever wrote has been read.
  [[nodiscard]] bool readable() const override { return !writer_ && ends_->writers == 0; }
  // Who writes to it does not get SIGPIPE.
  [[nodiscard]] bool has_reader() const { return ends_->readers > 0; }

 private:
  std::shared_ptr<Ends> ends_;
  bool writer_;
};

class LogFile final : public File {
 public:
  explicit LogFile(Census& census) : File(census, FileKind::kLog) {}
};

// An executable of Einhorn, by its version.
class Program final : public File {
 public:
  Program(Census& census, int of) : File(census, FileKind::kProgram), version(of) {}
  const int version;
};

struct Process;

// The notify descriptor of a worker's filter: who holds it can answer what its program asks.
class Notify final : public File {
 public:
  Notify(Census& census, std::shared_ptr<Process> of)
      : File(census, FileKind::kNotify), process(std::move(of)) {}
  // A call waits for its answer, or nobody is under the filter any more.
  [[nodiscard]] bool readable() const override;
  const std::shared_ptr<Process> process;
  bool asks = false;
};

// A shared socket in another form.
class Form final : public File {
 public:
  explicit Form(Census& census) : File(census, FileKind::kForm) {}
};

class Pidfd final : public File {
 public:
  Pidfd(Census& census, std::shared_ptr<Process> of)
      : File(census, FileKind::kPidfd), process(std::move(of)) {}
  [[nodiscard]] bool readable() const override;
  const std::shared_ptr<Process> process;
};

}  // namespace einhorn::sim
