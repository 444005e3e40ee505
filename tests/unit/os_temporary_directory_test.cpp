#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "os/temporary_directory.h"

namespace einhorn::os {
namespace {

class TemporaryDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "directory-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = std::filesystem::canonical(pattern).string();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  std::string directory_;
};

TEST_F(TemporaryDirectory, IsTheOneThatRubyFinds) {
  std::filesystem::create_directory(path("good"));
  std::filesystem::create_directory(path("open"));
  ASSERT_EQ(::chmod(path("open").c_str(), 0777), 0);
  std::filesystem::create_directory(path("sticky"));
  ASSERT_EQ(::chmod(path("sticky").c_str(), 01777), 0);
  std::ofstream(path("file")) << "x";
  struct Case {
    std::string tmpdir, tmp, temp, expected;
  };
  const std::vector<Case> cases = {
      {path("good"), path("sticky"), "", path("good")},
      {path("good/"), "", "", path("good")},
      {path("sticky/../good"), "", "", path("good")},
      {path("nowhere"), path("sticky"), path("good"), path("sticky")},
      {path("file"), path("open"), path("good"), path("good")},
      {"-", "-", "-", "/tmp"},
      {path("nowhere"), "-", path("file"), "/tmp"},
  };
  for (const Case& example : cases) {
    const auto environment = [&example](const char* name) -> const char* {
      const std::string& value = std::string(name) == "TMPDIR" ? example.tmpdir
                                 : std::string(name) == "TMP"  ? example.tmp
                                                               : example.temp;
      return value == "-" ? nullptr : value.c_str();
    };
    const Result<std::string> found = temporary_directory(environment);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(*found, example.expected) << example.tmpdir;
  }
}

}  // namespace
}  // namespace einhorn::os
