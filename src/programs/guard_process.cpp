#include "programs/guard_process.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "guard/guard.h"
#include "master/to_ruby.h"
#include "os/linux/linux_kernel.h"

namespace einhorn {
namespace {

void copy_path(std::span<char> into, const std::string& path) {
  if (path.size() < into.size()) {
    std::memcpy(into.data(), path.data(), path.size() + 1);
  }
}

// The words that a master of this guard is started with.
std::vector<std::string> master_arguments(const wire::Settings& settings) {
  std::vector<std::string> arguments = {settings.script, "--with-state-fd",
                                        std::to_string(settings.control), "--"};
  arguments.insert(arguments.end(), settings.original_command.begin(),
                   settings.original_command.end());
  return arguments;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::vector<std::string_view>> words_of_lines(std::string_view text) {
  std::vector<std::vector<std::string_view>> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    std::vector<std::string_view> words;
    while (!line.empty()) {
      const std::size_t space = std::min(line.find(' '), line.size());
      words.push_back(line.substr(0, space));
      line.remove_prefix(std::min(space + 1, line.size()));
    }
    if (!words.empty()) {
      lines.push_back(std::move(words));
    }
  }
  return lines;
}

int number(std::string_view word) {
  int value = -1;
  std::from_chars(word.data(), word.data() + word.size(), value);
  return value;
}

std::string shown_name(const wire::Settings& settings) {
  if (!settings.name.empty()) {
    return "ruby " + settings.name;  // what tools that look through `ps` know
  }
  std::string shown;
  for (const std::string& word : settings.original_command) {
    shown += (shown.empty() ? "" : " ") + word;
  }
  return shown;
}

}  // namespace

int run_guard(master::Boot boot, const Renewal* renewal, const Birth& birth, Title& title) {
  if (renewal != nullptr && renewal->how == 2 &&
      master::leave_to_ruby(boot, renewal->master, renewal->control) == os::MasterIs::kGone) {
    renewal = nullptr;  // it could not be done, and the master has left: start one again
  }
  const wire::Settings& settings = boot.settings;
  auto plan = std::make_unique<guard::Plan>();
  plan->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
  if (plan->program < 0) {
    std::fprintf(stderr, "einhorn: open /proc/self/exe: %s\n", strerrordesc_np(errno));
    return 1;
  }
  plan->control = settings.control;
  plan->soft_descriptors = birth.soft_descriptors;
  std::vector<std::string> arguments = master_arguments(settings);
  std::vector<std::string> environment = settings.start_environment;
  std::vector<char*> argv = pointers(arguments);
  std::vector<char*> envp = pointers(environment);
  plan->arguments = argv.data();
  plan->environment = envp.data();
  copy_path(plan->pidfile, settings.pidfile);
  copy_path(plan->log_file, settings.log_file);
  plan->log_json = settings.log_json;
  if (const char* manager = std::getenv("NOTIFY_SOCKET")) {
    copy_path(plan->notify_socket, manager);
  }
  for (const wire::OwnFile& file : settings.files) {
    if (plan->file_count < plan->files.size()) {
      guard::OwnFile& kept = plan->files[plan->file_count++];
      copy_path(kept.path, file.path);
      kept.device = file.device;
      kept.inode = file.inode;
    }
  }
  plan->predecessor = boot.predecessor.release();
  auto guard = std::make_unique<guard::Guard>(*plan);
  for (auto& [name, fd] : boot.descriptors) {
    guard->store(fd.release(), name);
  }
  if (renewal != nullptr) {
    guard->adopt(renewal->master, renewal->control, renewal->signals);
  }
  title.set("einhorn: " + shown_name(settings));
  return guard->run();
}

Result<master::Boot> read_renewal(std::string_view text, Renewal& renewal) {
  master::Boot boot;
  bool found = false;
  for (const std::vector<std::string_view>& words : words_of_lines(text)) {
    if (words[0] == "master" && words.size() == 3) {
      renewal.master = number(words[1]);
      renewal.control = number(words[2]);
    } else if (words[0] == "how" && words.size() == 2) {
      renewal.how = number(words[1]);
    } else if (words[0] == "signals" && words.size() == 2) {
      std::from_chars(words[1].data(), words[1].data() + words[1].size(), renewal.signals);
    } else if (words[0] == "fd" && words.size() == 3) {
      const int fd = number(words[1]);
      if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return make_error("renewed guard",
                          "descriptor \"" + std::string(words[2]) + "\" did not come along");
      }
      boot.descriptors.emplace_back(std::string(words[2]), os::UniqueFd(fd));
    }
  }
  Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
  if (!kernel) {
    return kernel.error();
  }
  for (const auto& [name, fd] : boot.descriptors) {
    if (name != "snapshot") {
      continue;
    }
    Result<std::string> bytes = (*kernel)->read_all(fd.get());
    if (!bytes) {
      return bytes.error();
    }
    Result<wire::Snapshot> snapshot = wire::decode_snapshot(*bytes);
    if (!snapshot) {
      return snapshot.error();
    }
    boot.settings = std::move(snapshot->settings);
    found = true;
  }
  if (!found || renewal.master <= 0) {
    return make_error("renewed guard", "there is no snapshot, or no master");
  }
  return boot;
}

}  // namespace einhorn
