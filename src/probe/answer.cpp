#include "probe/answer.h"

#include <algorithm>

#include "base/numbers.h"

namespace einhorn::probe {
namespace {

constexpr std::size_t kMostShown = 100;
constexpr std::size_t kDigits = 3;
constexpr int kLeastStatus = 100;

// "HTTP/1.1 200 OK"; 0: it is no such line.
int status_of(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (!line.starts_with("HTTP/1.") || space == std::string_view::npos) {
    return 0;
  }
  const std::string_view rest = line.substr(space + 1);
  const std::string_view digits = rest.substr(0, rest.find(' '));
  const int status = whole_number<int>(digits).value_or(0);
  return digits.size() == kDigits && status >= kLeastStatus ? status : 0;
}

}  // namespace

Answer read_answer(std::string_view text, bool ended) {
  Answer answer;
  const std::size_t newline = text.substr(0, kMostAnswer).find('\n');
  if (newline == std::string_view::npos && !ended && text.size() < kMostAnswer) {
    return answer;
  }
  std::string_view line = text.substr(0, newline);
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  answer.status = status_of(line);
  answer.line = line.substr(0, kMostShown);
  std::replace_if(
      answer.line.begin(), answer.line.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  if (answer.status != 0) {
    answer.kind = Answer::Kind::kStatus;
  } else {
    answer.kind = text.empty() ? Answer::Kind::kNothing : Answer::Kind::kOther;
  }
  return answer;
}

}  // namespace einhorn::probe
