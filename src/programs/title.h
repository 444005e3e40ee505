// What `ps` shows of this process: the words of the command line, written over.
#pragma once

#include <cstddef>
#include <string>

namespace einhorn {

class Title {
 public:
  // `argv` as main got it. The environment's strings lie behind the words; they are moved away at
  // the first set(), so pointers into them must not be kept.
  Title(int argc, char** argv);

  void set(const std::string& text);

 private:
  char* begin_ = nullptr;
  std::size_t room_ = 0;
  bool moved_ = false;
};

}  // namespace einhorn
