#include "base/result.h"

#include <cstring>

namespace einhorn {

std::string Error::message() const {
  std::string text = operation;
  if (!detail.empty()) {
    text += text.empty() ? detail : ": " + detail;
  }
  if (code != 0) {
    const char* reason = strerrordesc_np(code);
    text += ": ";
    text += reason != nullptr ? reason : "error " + std::to_string(code);
  }
  return text;
}

Error make_error(std::string operation, std::string detail) {
  return Error{0, std::move(operation), std::move(detail)};
}

}  // namespace einhorn
