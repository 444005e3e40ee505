#include "shell/no_master.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "shell/output.h"

namespace einhorn::shell {

namespace {

std::string reason(const Error& error) {
  if (!error.detail.empty()) {
    std::string text = error.detail;
    if (text[0] >= 'a' && text[0] <= 'z') {
      text[0] = static_cast<char>(text[0] - 'a' + 'A');
    }
    return text;
  }
  const char* text = strerrordesc_np(error.code);
  return text != nullptr ? text : error.message();
}

std::string_view hint(int code) {
  switch (code) {
    case ENOENT:
    case ENOTDIR:
      return "Is the Einhorn master running? Pass the cmd_name that it was started with (-c "
             "NAME),\n"
             "or the path of its command socket (-d PATH).\n";
    case ECONNREFUSED:
      return "The master that made this socket is gone. Start it again; it will replace the "
             "socket.\n";
    case EACCES:
    case EPERM:
      return "Only the master's user, and root, may speak to it: try again as that user.\n";
    case ENOTSOCK:
      return "Something else is at this path. Pass the path of the command socket (-d PATH), or\n"
             "the master's cmd_name (-c NAME).\n";
    case ENAMETOOLONG:
      return "Pass a shorter path: one that is relative to the working directory, or a symbolic\n"
             "link.\n";
    case ETIMEDOUT:
      return "The master takes no new connections at the moment: it may be stopped or "
             "overloaded.\n";
    default:
      return "Pass the cmd_name that the master was started with (-c NAME), or the path of its\n"
             "command socket (-d PATH).\n";
  }
}

// A word as one would type it in a shell.
std::string quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,=-";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
    return word;
  }
  std::string text = "'";
  for (const char character : word) {
    text += character == '\'' ? "'\\''" : std::string(1, character);
  }
  return text + "'";
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The path itself if there is nothing there.
std::string real_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? path : real.string();
}

std::string command_for(const client::FoundMaster& master,
                        const std::optional<std::string>& default_directory) {
  if (!default_directory.has_value() ||
      client::socket_path_in(*default_directory, master.name) != master.path) {
    return "einhornsh -d " + quoted(master.path);
  }
  return master.name.has_value() ? "einhornsh -c " + quoted(*master.name) : "einhornsh";
}

}  // namespace

std::string describe_no_master(const Error& error, const std::string& socket_path,
                               const std::vector<client::FoundMaster>& others,
                               const std::optional<std::string>& default_directory) {
  std::string text = "Could not connect to Einhorn master process:\n\n  ";
  text += reason(error) + " (" + escape_controls(socket_path, Newlines::kEscaped) + ")\n\nHINT: ";
  text += hint(error.code);
  if (others.empty()) {
    return text;
  }
  text += others.size() == 1 ? "This master answers:\n\n" : "These masters answer:\n\n";
  for (const client::FoundMaster& master : others) {
    text += "    " + escape_controls(command_for(master, default_directory), Newlines::kEscaped);
    text += '\n';
  }
  return text;
}

std::vector<client::FoundMaster> find_other_masters(
    const std::string& socket_path, const std::optional<std::string>& default_directory) {
  std::vector<std::string> seen;  // by their real paths
  std::vector<client::FoundMaster> found;
  for (const std::string& directory :
       {default_directory.value_or("/tmp"), directory_of(socket_path), std::string("/tmp")}) {
    const std::string real = real_path(directory);
    if (std::find(seen.begin(), seen.end(), real) != seen.end()) {
      continue;
    }
    seen.push_back(real);
    for (client::FoundMaster& master : client::list_masters(directory)) {
      if (master.path != socket_path) {
        found.push_back(std::move(master));
      }
    }
  }
  return found;
}

}  // namespace einhorn::shell
