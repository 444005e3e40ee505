// The files of src/agent/page, as they were when the program was built.
#pragma once

#include <span>
#include <string_view>

namespace einhorn::agent {

struct PageFile {
  std::string_view name;  // "index.html"
  std::string_view type;
  std::string_view bytes;
};

[[nodiscard]] std::span<const PageFile> page_files();

}  // namespace einhorn::agent
