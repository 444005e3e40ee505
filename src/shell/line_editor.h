// The prompt: one line at a time from a terminal, with editing, history and completion (libedit).
//
// While a line is being edited, signals that would end or stop the process are taken as data, so
// that the terminal is always given back as it was; between lines they act as usual. The history
// is kept in a file: at most 1000 lines, mode 0600, replaced as a whole after each line. A history
// that can't be read or written is no error: then there is none beyond this session.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "shell/completion.h"

namespace einhorn::shell {

struct EditorSetup {
  std::string prompt = "> ";
  std::string history_path;  // "" keeps no file
  // What to offer for the line up to the cursor.
  std::function<Completion(std::string_view before_cursor)> completer;
};

struct EditorOutcome {
  enum class Kind {
    kLine,    // a line was entered; it is in the history now, unless it is blank
    kEnd,     // end of input
    kSignal,  // a signal arrived instead; `signal` is its number
  };
  Kind kind = Kind::kEnd;
  std::string line;
  int signal = 0;
};

class LineEditor {
 public:
  // Reads standard input; writes to standard output if that is a terminal, otherwise to standard
  // error. Errors: libedit can't be set up. Contract: standard input is a terminal.
  [[nodiscard]] static Result<LineEditor> open(EditorSetup setup);

  LineEditor(LineEditor&&) noexcept;
  LineEditor& operator=(LineEditor&&) noexcept;
  ~LineEditor();

  // Shows the prompt and waits for a line. Afterwards the terminal is as it was.
  [[nodiscard]] EditorOutcome read_line();

 private:
  class Editor;
  explicit LineEditor(std::unique_ptr<Editor> editor);

  std::unique_ptr<Editor> editor_;
};

}  // namespace einhorn::shell
