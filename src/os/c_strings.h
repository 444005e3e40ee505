#pragma once

#include <string>
#include <vector>

namespace einhorn::os {

/** The texts as the list that execve() takes: a pointer each and a null at the end. It points into
    `texts`, which must stay as it is for as long as the list is used. */
inline std::vector<char*> c_strings(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace einhorn::os
