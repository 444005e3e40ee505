#include "sim/files.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "sim/process.h"

namespace einhorn::sim {

using Kind = os::Transfer::Kind;

std::string_view name(FileKind kind) {
  switch (kind) {
    case FileKind::kStream:
      return "stream";
    case FileKind::kListener:
      return "command socket";
    case FileKind::kService:
      return "listening socket";
    case FileKind::kPacket:
      return "guard socket";
    case FileKind::kDatagram:
      return "notify socket";
    case FileKind::kMemory:
      return "memory file";
    case FileKind::kLog:
      return "log";
    case FileKind::kPidfd:
      return "pidfd";
    case FileKind::kProgram:
      return "program";
    case FileKind::kOutput:
      return "pipe";
    case FileKind::kNotify:
      return "notify descriptor";
    case FileKind::kForm:
      return "form of a socket";
  }
  return "";
}

Stream::~Stream() {
  in_->reader_gone = true;
  in_->bytes.clear();
  in_->files.clear();
  out_->writer_gone = true;
}

std::pair<std::shared_ptr<Stream>, std::shared_ptr<Stream>> Stream::pair(Census& census,
                                                                         os::Peer peer,
                                                                         std::size_t capacity) {
  auto forth = std::make_shared<Pipe>();
  auto back = std::make_shared<Pipe>();
  forth->capacity = capacity;
  back->capacity = capacity;
  return {std::make_shared<Stream>(census, back, forth, os::Peer{}),
          std::make_shared<Stream>(census, forth, back, peer)};
}

os::Transfer Stream::read(std::size_t most, std::string& into) {
  if (in_->bytes.empty()) {
    return {in_->writer_gone ? Kind::kClosed : Kind::kWouldBlock, 0};
  }
  const std::size_t count = std::min(most, in_->bytes.size());
  into.assign(in_->bytes, 0, count);
  in_->bytes.erase(0, count);
  return {Kind::kDone, count};
}

os::Transfer Stream::write(std::string_view bytes) {
  if (out_->reader_gone) {
    return {Kind::kClosed, 0};
  }
  const std::size_t used = out_->bytes.size();
  const std::size_t room = out_->capacity > used ? out_->capacity - used : 0;
  if (room == 0) {
    return {Kind::kWouldBlock, 0};
  }
  const std::size_t count = std::min(room, bytes.size());
  out_->bytes.append(bytes.substr(0, count));
  return {Kind::kDone, count};
}

os::Transfer Stream::send(std::string_view bytes, std::vector<FilePtr> files) {
  if (out_->reader_gone) {
    return {Kind::kClosed, 0};
  }
  if (room() < bytes.size()) {
    return {Kind::kWouldBlock, 0};
  }
  out_->files.insert(out_->files.end(), std::make_move_iterator(files.begin()),
                     std::make_move_iterator(files.end()));
  return write(bytes);
}

PacketEnd::~PacketEnd() {
  in_->reader_gone = true;
  in_->packets.clear();
  out_->writer_gone = true;
}

std::pair<std::shared_ptr<PacketEnd>, std::shared_ptr<PacketEnd>> PacketEnd::pair(
    Census& census, std::size_t capacity) {
  auto forth = std::make_shared<PacketQueue>();
  auto back = std::make_shared<PacketQueue>();
  forth->capacity = capacity;
  back->capacity = capacity;
  return {std::make_shared<PacketEnd>(census, back, forth),
          std::make_shared<PacketEnd>(census, forth, back)};
}

Kind PacketEnd::receive(Packet& into) {
  if (in_->packets.empty()) {
    return in_->writer_gone ? Kind::kClosed : Kind::kWouldBlock;
  }
  into = std::move(in_->packets.front());
  in_->packets.pop_front();
  return Kind::kDone;
}

Kind PacketEnd::send(Packet packet) {
  if (out_->reader_gone) {
    return Kind::kClosed;
  }
  if (out_->packets.size() >= out_->capacity) {
    return Kind::kWouldBlock;
  }
  out_->packets.push_back(std::move(packet));
  return Kind::kDone;
}

std::string Memory::content() const {
  std::string bytes(std::min(size_, kPage), '\0');
  std::memcpy(bytes.data(), &page_, bytes.size());
  return bytes + rest_;
}

void Memory::write(std::uint64_t offset, std::string_view bytes) {
  const auto from = static_cast<std::size_t>(offset);
  ++writes_;
  size_ = std::max(size_, from + bytes.size());
  if (size_ > kPage) {
    rest_.resize(size_ - kPage);
  }
  for (std::size_t i = 0; i < bytes.size() && from + i < kPage; ++i) {
    reinterpret_cast<char*>(&page_)[from + i] = bytes[i];
  }
  const std::size_t in_page = from < kPage ? std::min(kPage - from, bytes.size()) : 0;
  if (in_page < bytes.size()) {
    rest_.replace(from + in_page - kPage, bytes.size() - in_page, bytes.substr(in_page));
  }
}

os::SpawnNote* Memory::map() {
  size_ = std::max(size_, kPage);
  return &page_.note;
}

bool Notify::readable() const { return asks || process->dead; }

bool Pidfd::readable() const { return process->dead; }

}  // namespace einhorn::sim
