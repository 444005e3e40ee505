#include "programs/title.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace einhorn {

Title::Title(int argc, char** argv) {
  if (argc < 1) {
    return;
  }
  begin_ = argv[0];
  char* end = begin_;
  for (int i = 0; i < argc && argv[i] == end; ++i) {
    end += std::strlen(argv[i]) + 1;
  }
  for (char** variable = environ; *variable != nullptr && *variable == end; ++variable) {
    end += std::strlen(*variable) + 1;
  }
  room_ = static_cast<std::size_t>(end - begin_);
}

void Title::set(const std::string& text) {
  if (room_ == 0) {
    return;
  }
  if (!moved_) {
    moved_ = true;
    std::size_t count = 0;
    while (environ[count] != nullptr) {
      ++count;
    }
    // Lives as long as the process does.
    auto** copy = static_cast<char**>(std::calloc(count + 1, sizeof(char*)));
    if (copy == nullptr) {
      room_ = 0;
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      copy[i] = strdup(environ[i]);
    }
    environ = copy;
  }
  std::memset(begin_, 0, room_);
  std::memcpy(begin_, text.data(), std::min(text.size(), room_ - 1));
}

}  // namespace einhorn
