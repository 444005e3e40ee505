#include "shell/line_editor.h"

#include <histedit.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cwchar>
#include <utility>
#include <vector>

#include "os/linux/retry.h"
#include "os/unique_fd.h"
#include "shell/history_file.h"
#include "shell/terminal.h"

namespace einhorn::shell {

namespace {

constexpr std::array<int, 6> kSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
constexpr std::size_t kMostListed = 200;

sigset_t editing_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kSignals) {
    sigaddset(&signals, signal);
  }
  return signals;
}

// The signals are blocked as long as this lives.
class BlockedSignals {
 public:
  BlockedSignals() {
    const sigset_t signals = editing_signals();
    ::sigprocmask(SIG_BLOCK, &signals, &before_);
  }
  ~BlockedSignals() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_ = {};
};

// The words in columns, sorted downwards as `ls` does.
std::string in_columns(const std::vector<std::string>& words, std::size_t width) {
  std::size_t widest = 0;
  for (const std::string& word : words) {
    widest = std::max(widest, word.size());
  }
  const std::size_t columns = std::max<std::size_t>(1, width / (widest + 2));
  const std::size_t rows = (words.size() + columns - 1) / columns;
  std::string text;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t at = row; at < words.size(); at += rows) {
      text += words[at];
      if (at + rows < words.size()) {
        text.append(widest + 2 - words[at].size(), ' ');
      }
    }
    text += '\n';
  }
  return text;
}

}  // namespace

class LineEditor::Editor {
 public:
  explicit Editor(EditorSetup setup)
      : setup_(std::move(setup)),
        out_(::isatty(STDOUT_FILENO) == 1 ? stdout : stderr),
        history_(setup_.history_path) {}
  ~Editor() {
    if (editline_ != nullptr) {
      ::el_end(editline_);
    }
  }
  Editor(const Editor&) = delete;
  Editor& operator=(const Editor&) = delete;

  Status set_up();
  EditorOutcome read_line();

 private:
  static Editor& self(EditLine* editline) {
    void* pointer = nullptr;
    ::el_get(editline, EL_CLIENTDATA, &pointer);
    return *static_cast<Editor*>(pointer);
  }
  static char* on_prompt(EditLine* editline) { return self(editline).setup_.prompt.data(); }
  static int on_read(EditLine* editline, wchar_t* character) {
    return self(editline).read_character(character);
  }
  static unsigned char on_complete(EditLine* editline, int) { return self(editline).complete(); }

  int read_character(wchar_t* character);
  bool wait_for_byte();
  void take_signal();
  void suspend();
  unsigned char complete();

  EditorSetup setup_;
  std::FILE* out_;
  HistoryFile history_;
  os::UniqueFd signals_;
  EditLine* editline_ = nullptr;
  int signal_ = 0;  // the one that ended the line
};

Status LineEditor::Editor::set_up() {
  const sigset_t signals = editing_signals();
  signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) {
    return Error{errno, "set up the prompt", ""};
  }
  editline_ = ::el_init("einhornsh", stdin, out_, stderr);
  if (editline_ == nullptr) {
    return make_error("set up the prompt", "libedit can't use this terminal");
  }
  ::el_set(editline_, EL_CLIENTDATA, static_cast<void*>(this));
  ::el_set(editline_, EL_PROMPT, &Editor::on_prompt);
  ::el_set(editline_, EL_EDITOR, "emacs");
  ::el_set(editline_, EL_GETCFN, &Editor::on_read);
  if (history_.handle() != nullptr) {
    ::el_set(editline_, EL_HIST, &::history, history_.handle());
  }
  // The wide form keeps the pointers; the narrow one would leak copies.
  ::el_wset(editline_, EL_ADDFN, L"einhorn-complete", L"Complete a command or its argument",
            &Editor::on_complete);
  ::el_set(editline_, EL_BIND, "^I", "einhorn-complete", nullptr);
  ::el_set(editline_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  ::el_set(editline_, EL_BIND, "^W", "ed-delete-prev-word", nullptr);
  ::el_source(editline_, nullptr);
  return Ok{};
}

EditorOutcome LineEditor::Editor::read_line() {
  const BlockedSignals blocked;
  signal_ = 0;
  ::el_resize(editline_);
  int count = 0;
  const char* text = ::el_gets(editline_, &count);
  EditorOutcome outcome;
  if (signal_ != 0) {
    outcome.kind = EditorOutcome::Kind::kSignal;
    outcome.signal = signal_;
  } else if (text != nullptr && count > 0) {
    outcome.kind = EditorOutcome::Kind::kLine;
    outcome.line = text;
    while (outcome.line.ends_with('\n') || outcome.line.ends_with('\r')) {
      outcome.line.pop_back();
    }
    history_.add(outcome.line);
  }
  return outcome;
}

// False when a signal or an error ends the line.
bool LineEditor::Editor::wait_for_byte() {
  while (signal_ == 0) {
    std::array<pollfd, 2> entries = {pollfd{STDIN_FILENO, POLLIN, 0},
                                     pollfd{signals_.get(), POLLIN, 0}};
    if (os::retry([&] { return ::poll(entries.data(), entries.size(), -1); }) < 0) {
      return false;
    }
    if (entries[1].revents != 0) {
      take_signal();
    } else if (entries[0].revents != 0) {
      return true;
    }
  }
  return false;
}

// libedit asks for characters, the terminal sends bytes.
int LineEditor::Editor::read_character(wchar_t* character) {
  std::mbstate_t state = {};
  while (wait_for_byte()) {
    char byte = 0;
    const ssize_t got = os::retry([&] { return ::read(STDIN_FILENO, &byte, 1); });
    if (got == 0) {
      return 0;
    }
    if (got < 0) {
      if (errno == EAGAIN) {
        continue;
      }
      return -1;
    }
    const std::size_t used = std::mbrtowc(character, &byte, 1, &state);
    if (used == static_cast<std::size_t>(-1)) {
      state = {};  // not text in this locale: leave it out
    } else if (used != static_cast<std::size_t>(-2)) {
      return 1;
    }
  }
  return -1;
}

void LineEditor::Editor::take_signal() {
  signalfd_siginfo info = {};
  if (::read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) {
    return;
  }
  const int signal = static_cast<int>(info.ssi_signo);
  if (signal == SIGWINCH) {
    ::el_resize(editline_);
    ::el_set(editline_, EL_REFRESH);
  } else if (signal == SIGTSTP) {
    suspend();
  } else {
    signal_ = signal;
  }
}

// Lets SIGTSTP act as usual, with the terminal given back in the meantime. (SIGSTOP would stop the
// shell for ever where nobody controls jobs; the kernel knows when to ignore SIGTSTP.)
void LineEditor::Editor::suspend() {
  ::el_set(editline_, EL_PREP_TERM, 0);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTSTP);
  ::raise(SIGTSTP);
  ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
  ::sigprocmask(SIG_BLOCK, &stop, nullptr);
  ::el_set(editline_, EL_PREP_TERM, 1);
  ::el_set(editline_, EL_REFRESH);
}

unsigned char LineEditor::Editor::complete() {
  if (!setup_.completer) {
    return CC_ERROR;
  }
  const LineInfo* line = ::el_line(editline_);
  const Completion found = setup_.completer(
      std::string_view(line->buffer, static_cast<std::size_t>(line->cursor - line->buffer)));
  if (found.candidates.empty()) {
    return CC_ERROR;
  }
  const std::string word(line->cursor - found.replaced, line->cursor);
  const bool unique = found.candidates.size() == 1;
  if (!unique && word == found.common) {
    std::vector<std::string> listed = found.candidates;
    listed.resize(std::min(listed.size(), kMostListed));
    std::fputs(("\n" + in_columns(listed, terminal_width(::fileno(out_)))).c_str(), out_);
    std::fflush(out_);
    return CC_REDISPLAY;
  }
  // Candidates are plain ASCII and so is a word that begins one: bytes are characters.
  ::el_deletestr(editline_, static_cast<int>(found.replaced));
  if (::el_insertstr(editline_, (found.common + (unique ? " " : "")).c_str()) != 0) {
    return CC_ERROR;
  }
  return CC_REFRESH;
}

LineEditor::LineEditor(std::unique_ptr<Editor> editor) : editor_(std::move(editor)) {}
LineEditor::LineEditor(LineEditor&&) noexcept = default;
LineEditor& LineEditor::operator=(LineEditor&&) noexcept = default;
LineEditor::~LineEditor() = default;

Result<LineEditor> LineEditor::open(EditorSetup setup) {
  auto editor = std::make_unique<Editor>(std::move(setup));
  if (Status status = editor->set_up(); !status) {
    return std::move(status).error();
  }
  return LineEditor(std::move(editor));
}

EditorOutcome LineEditor::read_line() { return editor_->read_line(); }

}  // namespace einhorn::shell
