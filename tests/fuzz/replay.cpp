// Runs files through a target, each once: the corpus as an ordinary test.
//   fuzz_TARGET FILE-OR-FOLDER...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz.h"

namespace {

namespace fs = std::filesystem;

// Much more than any input takes, also on a busy machine with sanitizers.
constexpr std::chrono::seconds kMost{20};

std::vector<fs::path> files_in(const std::vector<std::string>& names) {
  std::vector<fs::path> files;
  for (const std::string& name : names) {
    if (fs::is_directory(name)) {
      for (const fs::directory_entry& entry : fs::directory_iterator(name)) {
        files.push_back(entry.path());
      }
    } else {
      files.emplace_back(name);
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<fs::path> files = files_in({argv + 1, argv + argc});
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    if (!in) {
      std::fprintf(stderr, "can't read %s\n", file.c_str());
      return 1;
    }
    std::fprintf(stderr, "%s\n", file.c_str());  // the last one named is the one that failed
    const auto begin = std::chrono::steady_clock::now();
    einhorn::fuzz::run(bytes);
    if (std::chrono::steady_clock::now() - begin > kMost) {
      std::fprintf(stderr, "that took more than %d s\n", static_cast<int>(kMost.count()));
      return 1;
    }
  }
  std::fprintf(stderr, "%zu inputs\n", files.size());
  return files.empty() ? 1 : 0;
}
