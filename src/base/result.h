// Errors as values.
//
// `Result<T>` holds either a value or an `Error`; its names are a subset of `std::expected`'s, so
// that it can be swapped for it one day. A function that can fail returns one, and the caller
// either handles the error or passes it on; nobody both logs and returns.
//
// What is an outcome and not a failure (would block, end of file, no such process) is expressed in
// the value type of the function concerned, never as an Error.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace einhorn {

// One failure, described where it happened.
struct Error {
  int code = 0;           // errno of the failed call, or 0 when no system call was involved
  std::string operation;  // what was being done: "bind 127.0.0.1:80", "exec ./server"
  std::string detail;     // why it failed, if errno does not say it; may be empty

  // "operation: reason" in one line, for people.
  [[nodiscard]] std::string message() const;
};

// An Error without a system call behind it.
[[nodiscard]] Error make_error(std::string operation, std::string detail);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  // Contract: has_value().
  [[nodiscard]] T& value() & {
    CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] const T& value() const& {
    CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T&& value() && {
    CHECK(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Contract: !has_value().
  [[nodiscard]] const Error& error() const& {
    CHECK(state_.index() == 1);
    return *std::get_if<1>(&state_);
  }
  [[nodiscard]] Error&& error() && {
    CHECK(state_.index() == 1);
    return std::move(*std::get_if<1>(&state_));
  }

  template <typename U>
  [[nodiscard]] T value_or(U&& other) const& {
    return has_value() ? value() : static_cast<T>(std::forward<U>(other));
  }

 private:
  std::variant<T, Error> state_;
};

// A success without a value.
struct Ok {};
using Status = Result<Ok>;

}  // namespace einhorn
