// Where the files are that tests read.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace einhorn::unit {

// tests/data. Names of source files are relative in our programs, so the build that this program
// was made in says where its sources are.
inline std::filesystem::path data_folder() {
  constexpr std::string_view kHome = "CMAKE_HOME_DIRECTORY:INTERNAL=";
  for (std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
       folder.has_relative_path(); folder = folder.parent_path()) {
    std::ifstream cache(folder / "CMakeCache.txt");
    for (std::string line; std::getline(cache, line);) {
      if (line.starts_with(kHome)) {
        return std::filesystem::path(line.substr(kHome.size())) / "tests" / "data";
      }
    }
  }
  ADD_FAILURE() << "this program lies in no build folder";
  return {};
}

}  // namespace einhorn::unit
