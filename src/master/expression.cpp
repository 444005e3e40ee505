#include "master/expression.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/numbers.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr int kMostNesting = 32;
constexpr std::size_t kMostCharacters = 256;
constexpr double kMost = 9e15;  // a double still knows each whole number

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Recursive descent; every method reads what it is named after from the front of `rest_`.
class Evaluation {
 public:
  Evaluation(std::string_view text, std::uint32_t cpus) : text_(text), rest_(text), cpus_(cpus) {}

  Result<std::int64_t> run() {
    if (text_.size() > kMostCharacters) {
      return make_error(
          "", "an expression of " + std::to_string(text_.size()) +
                  " characters is too long (allowed: " + std::to_string(kMostCharacters) + ")");
    }
    Result<double> value = sum();
    if (!value) {
      return std::move(value).error();
    }
    if (peek() != '\0' || !rest_.empty()) {
      return wrong("what stands from " + wire::text::ruby_quoted(rest_) + " on is not understood");
    }
    if (!std::isfinite(*value) || std::abs(*value) > kMost) {
      return wrong("the result is too large");
    }
    // Down; below zero it does not matter, as no such number of workers is allowed.
    return static_cast<std::int64_t>(*value + 1e-9);
  }

 private:
  [[nodiscard]] Error wrong(const std::string& why) const {
    return make_error("", wire::text::ruby_quoted(text_) + " is no number of workers: " + why +
                              " (allowed: numbers, cpus, auto, + - * / ( ), min and max)");
  }

  // The next character that is no space; 0 at the end.
  char peek() {
    while (!rest_.empty() && rest_.front() == ' ') {
      rest_.remove_prefix(1);
    }
    return rest_.empty() ? '\0' : rest_.front();
  }
  bool take(char wanted) {
    if (peek() != wanted) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  Result<double> sum() {
    Result<double> left = product();
    while (left) {
      const char sign = peek();
      if (sign != '+' && sign != '-') {
        break;
      }
      rest_.remove_prefix(1);
      Result<double> right = product();
      if (!right) {
        return right;
      }
      left = sign == '+' ? *left + *right : *left - *right;
    }
    return left;
  }

  Result<double> product() {
    Result<double> left = factor();
    while (left) {
      const char sign = peek();
      if (sign != '*' && sign != '/') {
        break;
      }
      rest_.remove_prefix(1);
      Result<double> right = factor();
      if (!right) {
        return right;
      }
      if (sign == '/' && *right == 0) {
        return wrong("it divides by zero");
      }
      left = sign == '*' ? *left * *right : *left / *right;
    }
    return left;
  }

  Result<double> factor() {
    const char first = peek();
    if (first == '(') {
      rest_.remove_prefix(1);
      return closed(&Evaluation::sum);
    }
    if (is_letter(first)) {
      return word();
    }
    std::string_view behind = rest_;
    const auto number = take_number<double>(behind, std::chars_format::fixed);
    if (first == '-' || !number || !std::isfinite(*number)) {
      return first == '\0' ? wrong("it ends where a number should be")
                           : wrong("there is no number at " + wire::text::ruby_quoted(rest_));
    }
    rest_ = behind;
    return *number;
  }

  Result<double> word() {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_letter);
    const std::string name(rest_.begin(), end);
    rest_.remove_prefix(name.size());
    if (name == "cpus" || name == "auto") {
      return static_cast<double>(cpus_);
    }
    if (name != "min" && name != "max") {
      return wrong(wire::text::ruby_quoted(name) + " means nothing");
    }
    if (!take('(')) {
      return wrong(name + " needs parentheses");
    }
    return closed(name == "min" ? &Evaluation::least : &Evaluation::most);
  }

  // What is inside parentheses, and the closing one.
  Result<double> closed(Result<double> (Evaluation::*inside)()) {
    if (++nesting_ > kMostNesting) {
      return wrong("it is nested too deeply");
    }
    Result<double> value = (this->*inside)();
    --nesting_;
    if (value && !take(')')) {
      return wrong("a parenthesis is not closed");
    }
    return value;
  }

  Result<double> least() {
    return fold([](double a, double b) { return std::min(a, b); });
  }
  Result<double> most() {
    return fold([](double a, double b) { return std::max(a, b); });
  }
  template <typename Function>
  Result<double> fold(Function choose) {
    Result<double> chosen = sum();
    while (chosen && take(',')) {
      Result<double> other = sum();
      if (!other) {
        return other;
      }
      chosen = choose(*chosen, *other);
    }
    return chosen;
  }

  std::string_view text_;
  std::string_view rest_;
  double cpus_;
  int nesting_ = 0;
};

}  // namespace

bool is_expression(std::string_view text) {
  return text == "auto" || text.find("cpus") != std::string_view::npos ||
         text.find_first_of("*/()+") != std::string_view::npos;
}

Result<std::int64_t> evaluate(std::string_view text, std::uint32_t cpus) {
  return Evaluation(text, cpus).run();
}

}  // namespace einhorn::master
