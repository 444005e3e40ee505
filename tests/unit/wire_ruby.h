// Asks a real Ruby: what we write and read as YAML is held against its own library, so that nothing
// drifts. A missing Ruby fails the test that wanted it.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "wire/text.h"

namespace einhorn::wire::test_support {

class TemporaryFile {
 public:
  explicit TemporaryFile(std::string_view content) {
    const int fd = mkstemp(path_.data());
    EXPECT_GE(fd, 0);
    std::FILE* file = fdopen(fd, "w");
    EXPECT_EQ(std::fwrite(content.data(), 1, content.size(), file), content.size());
    std::fclose(file);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/einhorn-wire-test-XXXXXX";
};

// Runs `body` once for each input, which it has as `x` (a UTF-8 string), and gives back the string
// that it ends in. An exception gives "ERROR " and its class.
inline std::vector<std::string> ask_ruby(const std::string& body,
                                         const std::vector<std::string>& inputs) {
  std::string lines;
  for (const std::string& input : inputs) {
    lines += text::encode_base64(input) + '\n';
  }
  const TemporaryFile input_file(lines);
  const TemporaryFile script(
      "# encoding: utf-8\n"
      "require 'yaml'\nrequire 'set'\nrequire 'date'\nrequire 'json'\n"
      "permitted = { permitted_classes: [Set, Symbol, Time], aliases: true }\n"
      "File.foreach(ARGV[0]) do |line|\n"
      "  x = line.unpack1('m').force_encoding('UTF-8')\n"
      "  begin\n    y = begin\n" +
      body +
      "\n    end\n  rescue Exception => e\n    y = \"ERROR #{e.class}\"\n  end\n"
      "  puts [y.to_s].pack('m0')\nend\n");
  const std::string command =
      "TZ=UTC LC_ALL=C.UTF-8 ruby '" + script.path() + "' '" + input_file.path() + "'";
  std::FILE* pipe = popen(command.c_str(), "r");  // NOLINT: both paths are our own
  EXPECT_NE(pipe, nullptr);
  std::string printed;
  char buffer[65536];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    printed.append(buffer, got);
  }
  EXPECT_EQ(pclose(pipe), 0) << "this test needs ruby with its yaml library: apt-get install ruby";
  std::vector<std::string> answers;
  for (std::size_t at = 0; at < printed.size();) {
    const std::size_t end = printed.find('\n', at);
    answers.push_back(text::decode_base64(std::string_view(printed).substr(at, end - at)));
    at = end + 1;
  }
  EXPECT_EQ(answers.size(), inputs.size());
  answers.resize(inputs.size());
  return answers;
}

}  // namespace einhorn::wire::test_support
