// A document as it travels: what a YAML or JSON message says, without its spelling.
//
// Besides the kinds JSON has there are the three Ruby ones that Einhorn's protocol uses: symbols,
// sets and times. Maps keep the order of their keys, and keys may be of any scalar kind (the state
// of a Ruby master is keyed by symbols and integers).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/instant.h"

namespace einhorn::wire {

class Value;

struct Null {
  friend bool operator==(const Null&, const Null&) = default;
};
// A Ruby symbol, without its colon.
struct Symbol {
  std::string name;
  friend bool operator==(const Symbol&, const Symbol&) = default;
};
// A Ruby Set; the elements in order.
struct Set {
  std::vector<Value> elements;
};
using List = std::vector<Value>;
using Member = std::pair<Value, Value>;
using Map = std::vector<Member>;

class Value {
 public:
  using Storage =
      std::variant<Null, bool, std::int64_t, double, std::string, Symbol, WallTime, List, Map, Set>;

  Value() = default;
  Value(Null) {}
  Value(bool value) : storage_(value) {}
  Value(int value) : storage_(static_cast<std::int64_t>(value)) {}
  Value(std::int64_t value) : storage_(value) {}
  Value(std::uint32_t value) : storage_(static_cast<std::int64_t>(value)) {}
  Value(std::uint64_t value) : storage_(static_cast<std::int64_t>(value)) {}
  Value(double value) : storage_(value) {}
  Value(const char* value) : storage_(std::string(value)) {}
  Value(std::string_view value) : storage_(std::string(value)) {}
  Value(std::string value) : storage_(std::move(value)) {}
  Value(Symbol value) : storage_(std::move(value)) {}
  Value(WallTime value) : storage_(value) {}
  Value(List value) : storage_(std::move(value)) {}
  Value(Map value) : storage_(std::move(value)) {}
  Value(Set value) : storage_(std::move(value)) {}

  [[nodiscard]] const Storage& storage() const { return storage_; }

  [[nodiscard]] bool is_null() const { return std::holds_alternative<Null>(storage_); }
  // Null unless the value is of that kind.
  [[nodiscard]] const bool* as_bool() const { return std::get_if<bool>(&storage_); }
  [[nodiscard]] const std::int64_t* as_integer() const {
    return std::get_if<std::int64_t>(&storage_);
  }
  [[nodiscard]] const double* as_real() const { return std::get_if<double>(&storage_); }
  [[nodiscard]] const std::string* as_string() const { return std::get_if<std::string>(&storage_); }
  [[nodiscard]] const Symbol* as_symbol() const { return std::get_if<Symbol>(&storage_); }
  [[nodiscard]] const WallTime* as_time() const { return std::get_if<WallTime>(&storage_); }
  [[nodiscard]] const List* as_list() const { return std::get_if<List>(&storage_); }
  [[nodiscard]] const Map* as_map() const { return std::get_if<Map>(&storage_); }
  [[nodiscard]] const Set* as_set() const { return std::get_if<Set>(&storage_); }
  [[nodiscard]] Map* as_map() { return std::get_if<Map>(&storage_); }
  [[nodiscard]] List* as_list() { return std::get_if<List>(&storage_); }

  // The member of a map under a string (or, second, a symbol) of that name; null if this is not a
  // map or has none. The last one wins where a key is repeated.
  [[nodiscard]] const Value* find(std::string_view key) const;

  // Ruby's name of the value's class, as error texts of the protocol use it: "Integer", "Hash".
  [[nodiscard]] std::string_view ruby_class() const;
  // As Ruby's `inspect` prints it, in one line: `"x"`, `3`, `nil`, `[1, "a"]`, `{"a"=>1}`, `:b`.
  [[nodiscard]] std::string inspect() const;

  friend bool operator==(const Value& left, const Value& right);

 private:
  Storage storage_;
};

bool operator==(const Set& left, const Set& right);

// Appends a member to a map; both parts are made in their place.
template <typename Key, typename Held>
void put(Map& map, Key&& key, Held&& value) {
  map.emplace_back(std::forward<Key>(key), std::forward<Held>(value));
}

}  // namespace einhorn::wire
