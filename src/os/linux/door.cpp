#include "os/door.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "os/intercept.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

constexpr int kDoorBacklog = 4096;
constexpr std::string_view kDigits = "0123456789abcdef";
constexpr std::size_t kMostHeaders = 256;

using Key = std::array<std::uint64_t, 2>;

Key key_of(std::string_view secret) {
  Key key{};
  for (std::size_t i = 0; i < std::min<std::size_t>(secret.size(), 32); ++i) {
    key[i / 16] = key[i / 16] << 4U | std::min<std::size_t>(kDigits.find(secret[i]), 15);
  }
  return key;
}

// SipHash-2-4 of whole words.
std::uint64_t sip_hash(const Key& key, std::array<std::uint64_t, 3> words) {
  std::array<std::uint64_t, 4> v{key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU,
                                 key[0] ^ 0x6c7967656e657261U, key[1] ^ 0x7465646279746573U};
  const auto rounds = [&v](int count) {
    for (int i = 0; i < count; ++i) {
      v[0] += v[1];
      v[1] = std::rotl(v[1], 13) ^ v[0];
      v[0] = std::rotl(v[0], 32);
      v[2] += v[3];
      v[3] = std::rotl(v[3], 16) ^ v[2];
      v[0] += v[3];
      v[3] = std::rotl(v[3], 21) ^ v[0];
      v[2] += v[1];
      v[1] = std::rotl(v[1], 17) ^ v[2];
      v[2] = std::rotl(v[2], 32);
    }
  };
  const auto add = [&](std::uint64_t word) {
    v[3] ^= word;
    rounds(2);
    v[0] ^= word;
  };
  for (const std::uint64_t word : words) {
    add(word);
  }
  add(std::uint64_t{words.size() * sizeof(words[0])} << 56U);
  v[2] ^= 0xffU;
  rounds(4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

std::string hexadecimal(std::uint64_t number) {
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) {
    text += kDigits[(number >> static_cast<unsigned>(shift)) & 15U];
  }
  return text;
}

bool read_at(int fd, off_t offset, void* into, std::size_t bytes) {
  return retry([&] { return pread(fd, into, bytes, offset); }) == static_cast<ssize_t>(bytes);
}

// A note of the Go linker's: such a program makes its system calls itself.
bool has_go_note(int fd, const Elf64_Phdr& header) {
  std::array<char, 4096> notes{};
  const std::size_t bytes = std::min<std::size_t>(header.p_filesz, notes.size());
  if (!read_at(fd, static_cast<off_t>(header.p_offset), notes.data(), bytes)) {
    return false;
  }
  std::size_t at = 0;
  while (at + sizeof(Elf64_Nhdr) <= bytes) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data() + at, sizeof(note));
    const std::size_t name = at + sizeof(note);
    if (note.n_namesz == 4 && name + 4 <= bytes && std::memcmp(&notes[name], "Go\0", 4) == 0) {
      return true;
    }
    at = name + (std::size_t{note.n_namesz} + 3) / 4 * 4 + (std::size_t{note.n_descsz} + 3) / 4 * 4;
  }
  return false;
}

}  // namespace

Result<Door> open_door() {
  Door door;
  std::array<std::uint64_t, 2> random{};
  if (retry([&] { return getrandom(random.data(), sizeof(random), 0); }) !=
      static_cast<ssize_t>(sizeof(random))) {
    return Error{errno, "getrandom", ""};
  }
  door.secret = hexadecimal(random[0]) + hexadecimal(random[1]);
  door.fd.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t length = sizeof(sa_family_t);  // the kernel finds a name
  if (!door.fd || ::bind(door.fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(door.fd.get(), kDoorBacklog) != 0) {
    return Error{errno, "socket for intercepted programs", ""};
  }
  length = sizeof(address);
  if (getsockname(door.fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return Error{errno, "getsockname", ""};
  }
  door.name.assign(address.sun_path + 1, length - offsetof(sockaddr_un, sun_path) - 1);
  return door;
}

std::string door_token(std::string_view secret, std::uint64_t epoch, std::uint32_t slot) {
  const Key key = key_of(secret);
  return hexadecimal(sip_hash(key, {1, epoch, slot})) +
         hexadecimal(sip_hash(key, {2, epoch, slot}));
}

std::string out_of_preloads_reach(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Elf64_Ehdr head;
  if (!fd || !read_at(fd.get(), 0, &head, sizeof(head)) ||
      std::memcmp(&head.e_ident, ELFMAG, SELFMAG) != 0) {
    return "";  // a script: its interpreter counts, and is nearly always dynamic
  }
  if (head.e_ident[EI_CLASS] != ELFCLASS64) {
    return "it is no 64-bit program";
  }
  bool dynamic = false;
  bool go = false;
  for (std::size_t i = 0; i < std::min<std::size_t>(head.e_phnum, kMostHeaders); ++i) {
    Elf64_Phdr header;
    if (!read_at(fd.get(), static_cast<off_t>(head.e_phoff + i * sizeof(header)), &header,
                 sizeof(header))) {
      break;
    }
    dynamic = dynamic || header.p_type == PT_INTERP;
    go = go || (header.p_type == PT_NOTE && has_go_note(fd.get(), header));
  }
  if (!dynamic) {
    return "it is statically linked";
  }
  return go ? "it is a Go program, which makes its system calls itself" : "";
}

std::string preload_library() {
  const std::string directory = own_program_directory();
  for (const char* place : {"/../lib/einhorn/", "/../lib/", "/"}) {
    const std::string path = directory + place + "libeinhorn-intercept.so";
    std::array<char, PATH_MAX> resolved{};
    if (access(path.c_str(), R_OK) == 0 && realpath(path.c_str(), resolved.data()) != nullptr) {
      return resolved.data();
    }
  }
  return "";
}

}  // namespace einhorn::os
