// Every option of `einhorn`, once: the parser and the list in the help are both made from this
// table.
//
// Internal to the command line (master/options.h).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

// What it looks like in a config file, beside a plain value.
enum class Form {
  kOnce,    // given again, the last one counts
  kRepeat,  // may be given more than once: in a file also as a list
  kWords,   // a command line: in a file also as a list of its words
};

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
  Form form = Form::kOnce;
};

// In the order of the help.
[[nodiscard]] std::span<const OptionRule> option_table();
// The one of that long name; null: there is none.
[[nodiscard]] const OptionRule* find_option(std::string_view name);

// "-n/--number", "--nice".
[[nodiscard]] std::string label(const OptionRule& rule);

}  // namespace einhorn::master
