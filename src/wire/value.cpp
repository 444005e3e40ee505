#include "wire/value.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "wire/text.h"

namespace einhorn::wire {
namespace {

constexpr std::array<std::string_view, 28> kOperators = {
    "+",  "-",  "*",  "/",  "%",  "**", "!", "~", "<",  ">",   "<=",  ">=", "==", "===",
    "!=", "=~", "!~", "<<", ">>", "&",  "|", "^", "[]", "[]=", "<=>", "+@", "-@", "`"};

bool is_name(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) {
    return false;
  }
  return std::all_of(text.begin(), text.end(), [](char c) {
    const bool ascii_word =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    return ascii_word || static_cast<unsigned char>(c) >= 0x80;
  });
}

// Whether Ruby writes the symbol without quotation marks.
bool is_bare_symbol(std::string_view name) {
  if (std::find(kOperators.begin(), kOperators.end(), name) != kOperators.end()) {
    return true;
  }
  for (const std::string_view sigil : {"@@", "@", "$"}) {
    if (name.starts_with(sigil)) {
      return is_name(name.substr(sigil.size()));
    }
  }
  if (name.ends_with('?') || name.ends_with('!') || name.ends_with('=')) {
    name.remove_suffix(1);
  }
  return is_name(name);
}

class Inspector {
 public:
  std::string take() { return std::move(out_); }

  void visit(const Value& value) {
    std::visit([this](const auto& held) { print(held); }, value.storage());
  }

 private:
  void print(const Null&) { out_ += "nil"; }
  void print(bool value) { out_ += value ? "true" : "false"; }
  void print(std::int64_t value) { out_ += std::to_string(value); }
  void print(double value) { out_ += text::ruby_real(value); }
  void print(const std::string& value) { out_ += text::ruby_quoted(value); }
  void print(const Symbol& value) {
    out_ += ':';
    out_ += is_bare_symbol(value.name) && text::is_utf8(value.name) ? value.name
                                                                    : text::ruby_quoted(value.name);
  }
  void print(const WallTime& value) {
    const text::CivilTime civil = text::to_civil(value);
    out_ += text::civil_date(civil) + ' ' + text::civil_clock(civil);
    std::string fraction = text::civil_fraction(civil);
    fraction.erase(fraction.find_last_not_of('0') + 1);
    out_ += fraction.empty() ? "" : '.' + fraction;
    out_ += " UTC";
  }
  void print(const List& value) { print_elements("[", value, "]"); }
  void print(const Set& value) { print_elements("#<Set: {", value.elements, "}>"); }
  void print(const Map& value) {
    out_ += '{';
    const char* separator = "";
    for (const auto& [key, member] : value) {
      out_ += separator;
      visit(key);
      out_ += "=>";
      visit(member);
      separator = ", ";
    }
    out_ += '}';
  }
  void print_elements(std::string_view before, const List& elements, std::string_view after) {
    out_ += before;
    const char* separator = "";
    for (const Value& element : elements) {
      out_ += separator;
      visit(element);
      separator = ", ";
    }
    out_ += after;
  }

  std::string out_;
};

struct ClassName {
  std::string_view operator()(const Null&) const { return "NilClass"; }
  std::string_view operator()(bool value) const { return value ? "TrueClass" : "FalseClass"; }
  std::string_view operator()(std::int64_t) const { return "Integer"; }
  std::string_view operator()(double) const { return "Float"; }
  std::string_view operator()(const std::string&) const { return "String"; }
  std::string_view operator()(const Symbol&) const { return "Symbol"; }
  std::string_view operator()(const WallTime&) const { return "Time"; }
  std::string_view operator()(const List&) const { return "Array"; }
  std::string_view operator()(const Map&) const { return "Hash"; }
  std::string_view operator()(const Set&) const { return "Set"; }
};

}  // namespace

const Value* Value::find(std::string_view key) const {
  const Map* map = as_map();
  if (map == nullptr) {
    return nullptr;
  }
  const auto last = [map](const auto& is_named) -> const Value* {
    const auto found = std::find_if(map->rbegin(), map->rend(),
                                    [&](const auto& member) { return is_named(member.first); });
    return found != map->rend() ? &found->second : nullptr;
  };
  const Value* under_string = last([key](const Value& given) {
    const std::string* name = given.as_string();
    return name != nullptr && *name == key;
  });
  return under_string != nullptr ? under_string : last([key](const Value& given) {
    const Symbol* symbol = given.as_symbol();
    return symbol != nullptr && symbol->name == key;
  });
}

std::string_view Value::ruby_class() const { return std::visit(ClassName{}, storage_); }

std::string Value::inspect() const {
  Inspector inspector;
  inspector.visit(*this);
  return inspector.take();
}

bool operator==(const Value& left, const Value& right) { return left.storage_ == right.storage_; }

bool operator==(const Set& left, const Set& right) { return left.elements == right.elements; }

}  // namespace einhorn::wire
