// Every option of `einhorn`, once: the parser and the list in the help are both made from this
// table.
//
// Internal to the command line (master/options.h).
#pragma once

#include <array>
#include <string>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

struct OptionRule {
  char letter;        // 0: it has a long name only
  const char* name;   // the long name
  const char* value;  // what its argument is called; null: it takes none
  const char* text;   // for the help
  // Notes what it says in `options`. `value` is never empty where there is one. Errors leave
  // Error::operation empty: the caller knows which option it was.
  Status (*apply)(Options& options, const std::string& value);
  // May stand alone; a value comes behind `=`, or, if it is a rule, as the next word.
  bool value_optional = false;
};

inline constexpr std::size_t kOptionCount = 42;
// In the order of the help.
[[nodiscard]] const std::array<OptionRule, kOptionCount>& option_table();

// "-n/--number", "--nice".
[[nodiscard]] std::string label(const OptionRule& rule);

}  // namespace einhorn::master
