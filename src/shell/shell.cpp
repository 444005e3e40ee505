#include "shell/shell.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>
#include <string_view>
#include <utility>

#include "shell/agent_history.h"
#include "shell/completion.h"
#include "shell/interrupt.h"
#include "shell/line_editor.h"
#include "shell/line_reader.h"
#include "shell/no_master.h"
#include "shell/options.h"
#include "shell/session.h"
#include "shell/terminal.h"
#include "shell/top.h"
#include "shell/upgrade_view.h"
#include "shell/words.h"
#include "wire/json.h"

namespace einhorn::shell {

namespace {

constexpr int kExitFailure = 1;
constexpr std::string_view kHistory = "history";  // not the master's

// How a line of commands was left.
enum class Next {
  kGoOn,
  kQuit,      // it said so
  kBroken,    // the rest of it was not run: bad quoting, a lost connection, no room for the output
  kNoMaster,  // there is nobody to talk to
};

class Shell {
 public:
  Shell(ShellOptions options, const Invocation& invocation, Session session)
      : options_(std::move(options)),
        invocation_(invocation),
        session_(std::move(session)),
        at_terminal_(::isatty(STDIN_FILENO) == 1) {}

  int run();

 private:
  int run_interactive();
  int run_piped();
  bool greet();
  Status connect_or_explain();
  Result<CommandEnd> run_command(const CommandLine& line);
  Next run_commands(const std::vector<CommandLine>& commands);
  Next run_text(std::string_view text);
  Status print(const wire::Reply& reply) const;
  void complain(std::string_view text) const {
    [[maybe_unused]] const Status status = errors_.print("einhornsh: " + std::string(text));
  }
  void say(std::string_view text) const {
    [[maybe_unused]] const Status status = errors_.print(text);
  }
  void fail(int exit_status) {
    if (exit_status_ == 0) {
      exit_status_ = exit_status;
    }
  }
  Completion offer(std::string_view before_cursor);
  [[nodiscard]] std::string history_path() const;

  ShellOptions options_;
  const Invocation& invocation_;
  Session session_;
  bool at_terminal_;
  Output output_{STDOUT_FILENO};
  Output errors_{STDERR_FILENO};
  std::optional<CommandCatalog> catalog_;  // none until TAB was pressed
  int exit_status_ = 0;                    // of what failed first
};

int Shell::run() {
  std::vector<CommandLine> commands;
  if (options_.commands.has_value()) {
    Result<std::vector<CommandLine>> parsed = parse_sequence(*options_.commands);
    if (!parsed) {
      complain(parsed.error().message());
      return kExitFailure;
    }
    commands = std::move(parsed).value();
  }
  if (options_.mode == Mode::kTop) {
    return connect_or_explain() ? run_top(session_.socket_path(), invocation_.environment("TERM"))
                                : kExitFailure;
  }
  leave_on_interrupt(Interrupted::kNothing, at_terminal_ ? Screen::kNewLine : Screen::kAsItIs);
  const bool needs_master =
      commands.empty() || std::ranges::any_of(commands, [](const CommandLine& line) {
        return line.command != kHistory;
      });
  if (needs_master && !connect_or_explain()) {
    return kExitFailure;
  }
  if (options_.commands.has_value()) {
    run_commands(commands);
    return exit_status_;
  }
  return at_terminal_ ? run_interactive() : run_piped();
}

Status Shell::connect_or_explain() {
  Status status = session_.connect();
  if (!status) {
    std::optional<std::string> directory;
    if (Result<std::string> found = os::temporary_directory(invocation_.environment)) {
      directory = *found;
    }
    const std::string& path = session_.socket_path();
    say(describe_no_master(status.error(), path, find_other_masters(path, directory), directory));
  }
  return status;
}

Status Shell::print(const wire::Reply& reply) const {
  if (!options_.json) {
    return output_.print(reply.message);
  }
  wire::Map line;
  wire::put(line, "message", reply.message);
  if (!reply.status.empty()) {
    wire::put(line, "status", reply.status);
  }
  if (reply.request_id.has_value()) {
    wire::put(line, "request_id", *reply.request_id);
  }
  if (reply.wait) {
    wire::put(line, "wait", true);
  }
  return output_.print(wire::encode_json(line));
}

Result<CommandEnd> Shell::run_command(const CommandLine& line) {
  UpgradeView::Setup setup;
  setup.on_interrupt = line.command == "rollback" ? Interrupted::kRollback : Interrupted::kUpgrade;
  setup.typed = at_terminal_;
  setup.bar =
      output_.is_terminal() && !options_.json && can_redraw(invocation_.environment("TERM"));
  UpgradeView view(session_, setup);
  const auto on_reply = [&](const wire::Reply& reply) {
    reply.wait ? view.begin() : view.end();
    Status status = print(reply);
    if (status) {
      view.show();
    }
    return status;
  };
  return session_.run(line, on_reply, [&view] { view.show(); });
}

Next Shell::run_commands(const std::vector<CommandLine>& commands) {
  for (const CommandLine& line : commands) {
    if (line.command == "quit" || line.command == "exit") {
      if (at_terminal_) {
        say("Goodbye!");
      }
      return Next::kQuit;
    }
    if (line.command == kHistory) {
      if (options_.json) {
        complain("history prints lines, and has no --json");
        fail(kExitFailure);
      } else if (run_history(session_.socket_path(), line.args) != 0) {
        fail(kExitFailure);
      }
      continue;
    }
    if (!connect_or_explain()) {
      fail(kExitFailure);
      return Next::kNoMaster;
    }
    const Result<CommandEnd> end = run_command(line);
    if (!end) {
      complain(end.error().message());
      fail(kExitFailure);
      return Next::kBroken;
    }
    fail(static_cast<int>(*end));
  }
  return Next::kGoOn;
}

Next Shell::run_text(std::string_view text) {
  const Result<std::vector<CommandLine>> commands = parse_sequence(text);
  if (!commands) {
    complain(commands.error().message());
    fail(kExitFailure);
    return Next::kBroken;
  }
  return run_commands(*commands);
}

int Shell::run_piped() {
  LineReader reader(STDIN_FILENO);
  while (true) {
    Result<std::optional<std::string>> line = reader.next();
    if (!line) {
      complain(line.error().message());
      return kExitFailure;
    }
    if (!line->has_value() || run_text(**line) != Next::kGoOn) {
      return exit_status_;
    }
  }
}

bool Shell::greet() {
  const char* user = invocation_.environment("USER");
  if (user == nullptr) {
    user = invocation_.environment("LOGNAME");
  }
  Result<std::string> welcome = session_.greet(user == nullptr ? "" : user);
  if (!welcome) {
    complain(welcome.error().message());
    return false;
  }
  say(*welcome);
  say("Enter 'help' if you're not sure what to do.");
  say("");
  say("Type \"quit\" or \"exit\" to quit at any time");
  return true;
}

// Of what people typed they have seen how it ended: the exit status says only whether a master was
// there.
int Shell::run_interactive() {
  if (!greet()) {
    return kExitFailure;
  }
  EditorSetup setup;
  setup.history_path = history_path();
  setup.completer = [this](std::string_view before_cursor) { return offer(before_cursor); };
  int signal = 0;
  {
    Result<LineEditor> editor = LineEditor::open(std::move(setup));
    if (!editor) {
      complain(editor.error().message());
      return kExitFailure;
    }
    while (true) {
      const EditorOutcome outcome = editor->read_line();
      if (outcome.kind != EditorOutcome::Kind::kLine) {
        signal = outcome.signal;
        say("");
        break;
      }
      const Next next = run_text(outcome.line);
      if (next == Next::kQuit || next == Next::kNoMaster) {
        return next == Next::kQuit ? 0 : kExitFailure;
      }
    }
  }
  if (signal != 0 && signal != SIGINT) {
    ::raise(signal);
  }
  return 0;
}

Completion Shell::offer(std::string_view before_cursor) {
  if (!catalog_.has_value()) {
    const Result<std::string> help = session_.fetch_help();
    if (!help) {
      return complete(before_cursor, CommandCatalog());
    }
    catalog_ = CommandCatalog::from_help(*help);
  }
  return complete(before_cursor, *catalog_);
}

std::string Shell::history_path() const {
  const char* home = invocation_.environment("HOME");
  return home == nullptr || *home == '\0' ? "" : std::string(home) + "/.einhornsh_history";
}

}  // namespace

int run_shell(const Invocation& invocation) {
  const Output errors(STDERR_FILENO);
  Result<ShellOptions> options = parse_options(invocation.arguments);
  if (!options) {
    [[maybe_unused]] const Status status = errors.print("einhornsh: " + options.error().message());
    return kExitFailure;
  }
  if (options->mode == Mode::kUsage) {
    const std::string complaint =
        options->complaint.empty() ? "" : "einhornsh: " + options->complaint + "\n\n";
    [[maybe_unused]] const Status status = errors.print(complaint + usage_text());
    return kExitFailure;
  }
  if (options->mode == Mode::kVersion) {
    return Output(STDOUT_FILENO).print("einhornsh " EINHORN_VERSION) ? 0 : kExitFailure;
  }
  std::string path;
  if (options->socket_path.has_value()) {
    path = *options->socket_path;
  } else {
    Result<std::string> found =
        client::default_socket_path(options->command_name, invocation.environment);
    if (!found) {
      [[maybe_unused]] const Status status = errors.print("einhornsh: " + found.error().message());
      return kExitFailure;
    }
    path = *std::move(found);
  }
  const std::optional<Duration> timeout = options->timeout;
  Shell shell(*std::move(options), invocation, Session(std::move(path), timeout));
  return shell.run();
}

}  // namespace einhorn::shell
