#include "master/preload.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "wire/text.h"

namespace einhorn::master {
namespace {

struct Language {
  std::string_view name;
  std::string_view ending;
  std::string_view interpreter;  // "" it needs none
  std::string_view loader;       // from our own program's directory
};
constexpr std::array kLanguages = {
    Language{"python", ".py", "python3", "/../share/einhorn/preload/preload.py"},
    Language{"ruby", ".rb", "ruby", "/../share/einhorn/preload/preload.rb"},
    Language{"perl", ".pl", "perl", "/../share/einhorn/preload/preload.pl"},
    Language{"php", ".php", "php", "/../share/einhorn/preload/preload.php"},
    Language{"c", ".so", "", "/einhorn-preload"},
};

// They run many threads from their first moment on, and fork() would copy one of them.
struct Unforkable {
  std::string_view name;
  std::string_view ending;
  const char* instead;
};
constexpr std::array kUnforkable = {
    Unforkable{"node", ".js",
               "Node.js can't fork a process that has loaded code (its threads would be missing in "
               "it). Start it without -p; a snapshot (node --snapshot-blob) or the compile cache "
               "(NODE_COMPILE_CACHE) makes its start faster"},
    Unforkable{"go", ".go",
               "Go programs can't fork (the threads of the runtime would be missing in the child). "
               "Start the program without -p: it has no code to load, and its pages are shared "
               "already"},
};

const Language* find_language(std::string_view name) {
  for (const Language& language : kLanguages) {
    if (language.name == name) {
      return &language;
    }
  }
  return nullptr;
}

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

bool is_identifier(std::string_view text, bool dots) {
  return !text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) == 0 &&
         std::all_of(text.begin(), text.end(), [dots](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_' || c >= 0x80 || (dots && c == '.');
         });
}

bool is_module_and_function(std::string_view code) {
  const std::size_t colon = code.find(':');
  return colon != std::string_view::npos && is_identifier(code.substr(0, colon), true) &&
         is_identifier(code.substr(colon + 1), true);
}

// "ruby", "/usr/bin/ruby3.1", "python3", "venv/bin/python".
bool is_interpreter(const Language& language, std::string_view word) {
  std::string_view name = base_name(word);
  const std::string_view stem = language.name == "python" ? "python" : language.interpreter;
  if (language.interpreter.empty() || !name.starts_with(stem)) {
    return false;
  }
  name.remove_prefix(stem.size());
  return name.find_first_not_of("0123456789.") == std::string_view::npos;
}

std::string variable_of(const wire::Program& program, std::string_view name) {
  for (const std::string& variable : program.environment) {
    if (variable.starts_with(name) && variable.size() > name.size() &&
        variable[name.size()] == '=') {
      return variable.substr(name.size() + 1);
    }
  }
  return "";
}

// The code's path with its directory's links resolved: a link that moves later does not change
// what this version is.
Result<std::string> find_code(os::Kernel& kernel, const std::string& code,
                              const std::string& directory) {
  const std::string path = code.starts_with('/') ? code : directory + "/" + code;
  Result<std::string> found = kernel.find_program(path, "", directory);
  if (!found) {
    return make_error("-p " + wire::text::ruby_quoted(code),
                      "there is no file " + wire::text::ruby_quoted(path));
  }
  const std::size_t slash = path.rfind('/');
  Result<std::string> resolved = kernel.resolve_directory(path.substr(0, slash) + "/");
  return resolved ? *resolved + path.substr(slash) : path;
}

// What is made anew for each worker can't be had of a process that forks them all.
Status check_together(const wire::Settings& settings) {
  const bool grouped =
      settings.cgroup_memory != 0 || settings.cgroup_cpu != 0 || settings.cgroup_pids != 0;
  for (const auto& [given, name] :
       {std::pair(settings.capture, "--capture"), std::pair(grouped, "--cgroup-..."),
        std::pair(!settings.privileges.root.empty(), "--chroot"),
        std::pair(!settings.worker_binds.empty(), "-b ADDR:PORT+index")}) {
    if (given) {
      return make_error("-p/--preload", std::string("can't be combined with ") + name);
    }
  }
  return Ok{};
}

Status plan_command(os::Kernel& kernel, const wire::Settings& settings, wire::Program& program) {
  Result<std::string> found = kernel.find_program(settings.preload_command.at(0),
                                                  variable_of(program, "PATH"), program.directory);
  if (!found) {
    return make_error("--preload-command", found.error().message());
  }
  program.zygote = *found;
  program.zygote_arguments = settings.preload_command;
  return Ok{};
}

}  // namespace

std::string_view language_of(std::string_view code) {
  if (is_module_and_function(code)) {
    return "python";
  }
  const std::string_view name = base_name(code);
  for (const Language& language : kLanguages) {
    if (name.ends_with(language.ending)) {
      return language.name;
    }
  }
  for (const Unforkable& language : kUnforkable) {
    if (name.ends_with(language.ending)) {
      return language.name;
    }
  }
  if (name.ends_with(".psgi") || name.ends_with(".pm")) {
    return "perl";
  }
  if (name.ends_with(".ru")) {
    return "ruby";
  }
  if (name.ends_with(".mjs") || name.ends_with(".cjs") || name.ends_with(".ts")) {
    return "node";
  }
  return "";
}

std::string_view language_of_script(std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  if (!line.starts_with("#!")) {
    return "";
  }
  line.remove_prefix(2);
  while (!line.empty()) {
    const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
    for (const Language& language : kLanguages) {
      if (is_interpreter(language, word)) {
        return language.name;
      }
    }
  }
  return "";
}

Status check_language(std::string_view name) {
  for (const Unforkable& language : kUnforkable) {
    if (language.name == name) {
      return make_error("", language.instead);
    }
  }
  if (find_language(name) != nullptr) {
    return Ok{};
  }
  std::string all;
  for (const Language& language : kLanguages) {
    all += (all.empty() ? "" : ", ") + std::string(language.name);
  }
  return make_error(
      "", (name.empty() ? std::string("the language can't be told from its ending")
                        : wire::text::ruby_quoted(name) + " is no language that can be preloaded") +
              " (allowed: " + all + "; any other by --preload-command)");
}

std::vector<std::string> zygote_words(const wire::Settings& settings, const wire::Program& program,
                                      const std::vector<std::string>& command) {
  std::vector<std::string> words = program.zygote_arguments;
  if (!settings.preload_command.empty()) {
    return words;
  }
  const Language* language =
      find_language(settings.preload_language.empty() ? language_of(settings.preload)
                                                      : settings.preload_language);
  const bool skip =
      language != nullptr && command.size() > 1 && is_interpreter(*language, command[0]);
  words.insert(words.end(), command.begin() + (skip ? 1 : 0), command.end());
  return words;
}

Status plan_preload(os::Kernel& kernel, const wire::Settings& settings, wire::Program& program) {
  program.zygote.clear();
  program.zygote_arguments.clear();
  program.postload = false;
  if (!settings.preloads()) {
    return Ok{};
  }
  if (Status together = check_together(settings); !together) {
    return together;
  }
  if (!settings.preload_command.empty()) {
    return plan_command(kernel, settings, program);
  }
  const std::string& code = settings.preload;
  const std::string_view name =
      settings.preload_language.empty() ? language_of(code) : settings.preload_language;
  const Language* language = find_language(name);
  if (language == nullptr) {
    return make_error("-p " + wire::text::ruby_quoted(code),
                      check_language(name).error().message());
  }
  const bool module = language->name == "python" && is_module_and_function(code);
  Result<std::string> path = module ? code : find_code(kernel, code, program.directory);
  if (!path) {
    return path.error();
  }
  Result<std::string> own = kernel.own_program_directory();
  if (!own) {
    return own.error();
  }
  Result<std::string> loader =
      kernel.find_program(*own + std::string(language->loader), "", program.directory);
  if (!loader) {
    return make_error("-p " + wire::text::ruby_quoted(code),
                      "the loader of that language is missing: " + loader.error().message());
  }
  std::string interpreter = settings.preload_interpreter;
  const std::vector<std::string>& command = settings.original_command;
  if (interpreter.empty() && command.size() > 1 && is_interpreter(*language, command[0])) {
    interpreter = command[0];  // the one that would run it without -p
  }
  if (interpreter.empty()) {
    interpreter = language->interpreter;
  }
  if (language->interpreter.empty()) {
    program.zygote = *loader;
    program.zygote_arguments = {*loader};
  } else {
    Result<std::string> found =
        kernel.find_program(interpreter, variable_of(program, "PATH"), program.directory);
    if (!found) {
      return make_error("-p " + wire::text::ruby_quoted(code),
                        found.error().message() + "; --preload-interpreter names another");
    }
    program.zygote = *found;
    program.zygote_arguments = {interpreter, *loader};
  }
  program.zygote_arguments.push_back(*path);
  return Ok{};
}

}  // namespace einhorn::master
