#include "master/boot.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <tuple>

#include "base/limits.h"
#include "master/agent_keeper.h"
#include "master/cgroups.h"
#include "master/journal.h"
#include "master/log.h"
#include "master/master.h"
#include "master/privileges.h"
#include "master/worker_program.h"
#include "os/cpus.h"
#include "os/door.h"
#include "os/intercept.h"
#include "os/linux/linux_kernel.h"
#include "os/listeners.h"
#include "os/own_file.h"
#include "os/state_files.h"
#include "os/takeover.h"
#include "os/temporary_directory.h"

namespace einhorn::master {
namespace {

const char* lookup(const char* name) { return std::getenv(name); }

std::string absolute(const std::string& path) {
  if (path.empty() || path.front() == '/') {
    return path;
  }
  std::string directory(4096, '\0');
  if (getcwd(directory.data(), directory.size()) == nullptr) {
    return path;
  }
  directory.resize(directory.find('\0'));
  return directory + "/" + path;
}

// Says which option was behind what failed, so that it is known what to change.
Error of_option(std::string_view option, Error error) {
  if (error.code != 0) {  // else the message says what to do
    error.operation = std::string(option) + ": " + error.operation;
  }
  return error;
}

std::string flags_text(const std::vector<std::string>& flags) {
  std::string text = "[";
  for (const std::string& flag : flags) {
    text += (text.size() > 1 ? ", \"" : "\"") + flag + "\"";
  }
  return text + "]";
}

// Gathers what must go again if a later step fails.
class Cleanup {
 public:
  ~Cleanup() {
    for (const std::string& path : paths_) {
      os::remove_file(path);
    }
    for (const os::Listener& listener : *listeners_) {
      os::remove_socket_file(listener);
    }
    if (groups_ != nullptr) {
      remove_pool_groups(*groups_);
    }
  }
  explicit Cleanup(std::vector<os::Listener>* listeners) : listeners_(listeners) {}
  Cleanup(const Cleanup&) = delete;
  Cleanup& operator=(const Cleanup&) = delete;
  void add(const std::string& path) { paths_.push_back(path); }
  void add_groups(const wire::Settings& settings) { groups_ = &settings; }
  void keep() {
    paths_.clear();
    groups_ = nullptr;
    listeners_ = &nothing_;
  }

 private:
  std::vector<std::string> paths_;
  std::vector<os::Listener> nothing_;
  std::vector<os::Listener>* listeners_;
  const wire::Settings* groups_ = nullptr;
};

class Booting {
 public:
  Booting(Options options, std::vector<std::string> environment, const std::string& script)
      : options_(std::move(options)), environment_(std::move(environment)) {
    settings().script = script;
  }

  Result<Boot> run() {
    Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
    if (!kernel) {
      return kernel.error();
    }
    kernel_ = std::move(*kernel);
    log_ = std::make_unique<Log>(*kernel_, kernel_->own_pid(), settings().verbosity,
                                 settings().log_json);
    log_->set_time(to_wall(kernel_->now(), kernel_->wall_offset()));
    for (const auto step :
         {&Booting::open_log, &Booting::resolve, &Booting::fill_in_paths, &Booting::record_program,
          &Booting::take_socket, &Booting::choose_interception, &Booting::bind_sockets,
          &Booting::choose_numbers, &Booting::replace_arguments, &Booting::make_cgroups,
          &Booting::write_files, &Booting::write_snapshot}) {
      if (Status done = (this->*step)(); !done) {
        return done.error();
      }
      if (boot_.predecessor) {
        return std::move(boot_);
      }
    }
    cleanup_.keep();
    for (std::size_t i = 0; i < opened_.size(); ++i) {
      boot_.descriptors.emplace_back("listen:" + std::to_string(i), std::move(opened_[i].fd));
    }
    boot_.settings = settings();
    return std::move(boot_);
  }

 private:
  wire::Settings& settings() { return options_.settings; }
  [[nodiscard]] const wire::Settings& settings() const { return options_.settings; }

  Status open_log() {
    // Before there is anything else, so that a wrong path is said on standard error.
    if (!settings().capture_file.empty()) {
      if (Status usable = os::check_log_file(settings().capture_file, "--capture"); !usable) {
        return usable;
      }
    }
    if (!settings().agent.empty()) {
      if (Result<std::string> there = find_agent(*kernel_, environment_); !there) {
        return there.error();
      }
    }
    const Status opened = log_->open(settings().log_file);
    return opened ? opened : Status(of_option("--log-file", opened.error()));
  }

  Status resolve() {
    if (Status resolved = resolve_privileges(options_); !resolved) {
      return resolved;
    }
    if (settings().privileges.master_uid) {
      return give_log_to_master();
    }
    return Ok{};
  }

  // So that it can open it again after a rotation, and each new master.
  Status give_log_to_master() {
    const wire::Privileges& privileges = settings().privileges;
    if (settings().log_file.empty()) {
      return Ok{};
    }
    const os::OpenedFile file = os::open_log_file(settings().log_file.c_str());
    if (file.fd < 0) {
      return os::open_error(settings().log_file, file, "--log-file");
    }
    const os::UniqueFd log(file.fd);
    if (::fchown(log.get(), *privileges.master_uid, *privileges.master_gid) != 0) {
      return Error{errno, "give " + settings().log_file + " to the master's user", ""};
    }
    return Ok{};
  }

  Status fill_in_paths() {
    wire::Settings& s = settings();
    s.start_environment = environment_;
    s.original_command = options_.command;
    if (Status filled = fill_in_files(s); !filled) {
      return filled;
    }
    for (std::string* path : {&s.socket_path, &s.pidfile, &s.lockfile, &s.notify_path}) {
      *path = absolute(*path);
    }
    for (std::string* path : {&s.log_file, &s.capture_file}) {
      if (!path->empty()) {
        *path = absolute(*path);
      }
    }
    pool::Config& config = options_.config;
    config.max_unacked_given = s.max_unacked_given.has_value();
    if (!config.max_unacked_given) {
      config.max_unacked = os::usable_cpus();
    }
    if (!s.arguments.empty()) {
      s.configured = config;
      s.configured_verbosity = s.verbosity;
    }
    inherited_ = os::inherited_descriptors();
    return Ok{};
  }

  Status record_program() {
    Result<std::string> own = kernel_->current_directory();
    Result<wire::Program> program =
        find_worker_program(*kernel_, settings(), environment_, own ? *own : std::string("/"));
    if (!program) {
      return program.error();
    }
    program_ = std::move(*program);
    settings().current_directory = own ? *own : program_.directory;
    return Ok{};
  }

  Status take_socket() {
    Result<os::UniqueFd> lock = os::lock_file(settings().lockfile);
    if (!lock) {
      return of_option("-f/--lockfile", lock.error());
    }
    lock_ = std::move(*lock);
    Result<os::UniqueFd> alive = os::connect_if_alive(settings().socket_path);
    if (!alive) {
      return alive.error();
    }
    if (!*alive) {
      return Ok{};
    }
    Result<os::TakenOver> taken = os::ask_to_take_over(alive->get());
    if (!taken || taken->descriptors.empty()) {
      return make_error(
          "Another process (probably another Einhorn) is listening on the Einhorn command socket "
          "at " +
              settings().socket_path,
          "If you'd like to run this Einhorn as well, pass a `-d PATH_TO_SOCKET` to change the "
          "command socket location");
    }
    return take_over(std::move(*taken), std::move(*alive));
  }

  // A pool whose guard died: everything goes on as it was, only the guard is new.
  Status take_over(os::TakenOver taken, os::UniqueFd predecessor) {
    for (const auto& [name, fd] : taken.descriptors) {
      if (name != "snapshot") {
        continue;
      }
      Result<std::string> bytes = kernel_->read_all(fd.get());
      if (!bytes) {
        return bytes.error();
      }
      Result<wire::Snapshot> snapshot = wire::decode_snapshot(*bytes);
      if (!snapshot) {
        return snapshot.error();
      }
      boot_.settings = snapshot->settings;
    }
    log_->info("taking_over", "Taking over the pool at " + settings().socket_path +
                                  ", whose guard has died; its options stay as they were");
    boot_.descriptors = std::move(taken.descriptors);
    boot_.predecessor = std::move(predecessor);
    return Ok{};
  }

  // Whether and how programs are intercepted.
  Status choose_interception() {
    using Intercept = Options::Intercept;
    if (options_.intercept == Intercept::kOff) {
      return Ok{};
    }
    for (os::BindSpec& spec : options_.binds) {
      spec.for_interception = true;
    }
    if (Status known = check_rules(); !known) {
      return known;
    }
    if (options_.intercept == Intercept::kPreload) {
      return preload_library();
    }
    const os::Interception found = os::probe_interception();
    if (!found.possible) {
      const std::string why =
          "programs can't be intercepted here: " + found.refused +
          ". It takes seccomp user notification (Linux 5.9, and in a container a profile that "
          "allows seccomp, pidfd_getfd and process_vm_readv)";
      if (options_.intercept == Intercept::kSeccomp) {
        return make_error("--intercept", why);
      }
      log_->info("intercepting", "By seccomp " + why + ". A library is preloaded instead");
      return preload_library();
    }
    settings().intercept = wire::Interception::kSeccomp;
    log_->info("intercepting", "Programs that bind an address of -b get the shared socket");
    if (found.no_new_privs) {
      log_->info("no_new_privs",
                 "Without root's powers interception takes no_new_privs: programs that are "
                 "set-user-id, or have capabilities, do not get them in workers");
      if (os::raises_privileges(program_.path)) {
        log_->error("no_new_privs", program_.path +
                                        " is set-user-id, set-group-id or has capabilities: it "
                                        "will run without them");
      }
    }
    return Ok{};
  }

  // Where there is no seccomp: a library in the program asks.
  Status preload_library() {
    if (const std::string why = os::out_of_preloads_reach(program_.path); !why.empty()) {
      return make_error("--intercept", program_.path + " can't be intercepted by a preloaded " +
                                           "library: " + why);
    }
    settings().intercept = wire::Interception::kPreload;
    settings().intercept_library = os::preload_library();
    if (settings().intercept_library.empty()) {
      return make_error("--intercept", "libeinhorn-intercept.so is not installed with " +
                                           os::own_program_directory() +
                                           "/einhorn (looked for in ../lib/einhorn, ../lib and "
                                           "beside it)");
    }
    Result<os::Door> door = os::open_door();
    if (!door) {
      return door.error();
    }
    settings().intercept_door = door->name;
    settings().intercept_secret = door->secret;
    boot_.descriptors.emplace_back("door", std::move(door->fd));
    log_->info("intercepting",
               "Programs that bind an address of -b get the shared socket; they ask by " +
                   settings().intercept_library);
    if (os::raises_privileges(program_.path)) {
      log_->error("preload_ignored", program_.path +
                                         " is set-user-id, set-group-id or has capabilities: the "
                                         "loader ignores LD_PRELOAD for it, so what it binds is "
                                         "its own");
    }
    return Ok{};
  }

  [[nodiscard]] Status check_rules() {
    for (const std::string& text : settings().intercept_rules) {
      const Result<os::InterceptRule> rule = os::parse_intercept_rule(text);
      if (!rule) {
        return rule.error();
      }
      const bool known =
          std::any_of(options_.binds.begin(), options_.binds.end(), [&](const os::BindSpec& spec) {
            return rule->to_name.empty()
                       ? spec.family == os::BindSpec::Family::kInet && spec.port == rule->to_port
                       : spec.name == rule->to_name;
          });
      if (!known) {
        return make_error(
            "--intercept " + text,
            "there is no -b with that " + std::string(rule->to_name.empty() ? "port" : "name"));
      }
    }
    return Ok{};
  }

  // A worker has one descriptor 0.
  [[nodiscard]] Status check_stdin() const {
    std::size_t wanted = 0;
    for (const wire::ListenerRecord& record : records_) {
      wanted += record.as_stdin ? 1 : 0;
      if (record.as_stdin && settings().intercept != wire::Interception::kOff) {
        return make_error("-b " + record.text,
                          "\"stdin\" makes no sense with --intercept, where programs bind their "
                          "sockets themselves");
      }
      if (record.as_stdin && !settings().preload.empty()) {
        return make_error("-b " + record.text,
                          "\"stdin\" makes no sense with --preload, whose workers are forked");
      }
      if (wanted > 1) {
        return make_error("-b " + record.text,
                          "\"stdin\" is for one socket, as a worker has one descriptor 0; this is "
                          "another one (of the same -b, if its name has several addresses)");
      }
    }
    return Ok{};
  }

  // -b, and the old srv: arguments of the program.
  Status bind_sockets() {
    Result<os::InheritedSockets> handed_in =
        os::read_inherited_sockets(lookup, static_cast<std::int32_t>(getpid()));
    if (!handed_in) {
      return handed_in.error();
    }
    for (const int fd : handed_in->fds) {
      inherited_.erase(std::remove(inherited_.begin(), inherited_.end(), fd), inherited_.end());
    }
    std::uint32_t bind_index = 0;
    for (const os::BindSpec& spec : options_.binds) {
      if (spec.per_worker) {
        settings().worker_binds.push_back(spec.text);  // opened when the worker is started
        continue;
      }
      if (Status bound = bind(spec, bind_index++, false, *handed_in); !bound) {
        return bound;
      }
    }
    for (std::size_t i = 1; i < options_.command.size(); ++i) {
      const std::optional<os::SrvArgument> srv = os::find_srv_argument(options_.command[i]);
      if (!srv) {
        continue;
      }
      const auto known = std::find_if(srv_.begin(), srv_.end(),
                                      [&](const auto& entry) { return entry.first == srv->spec; });
      if (known == srv_.end()) {
        Result<os::BindSpec> spec = os::parse_bind_spec(srv->spec);
        if (!spec) {
          return make_error("argument " + options_.command[i], spec.error().message());
        }
        const auto index = static_cast<std::uint32_t>(opened_.size());
        if (Status bound = bind(*spec, bind_index++, true, *handed_in); !bound) {
          return bound;
        }
        srv_.emplace_back(srv->spec, index);
      }
    }
    forget_stored(*handed_in);
    for (const int fd : handed_in->fds) {
      ::close(fd);  // those that a -b fd: named were duplicated
    }
    return check_stdin();
  }

  // Those that the service manager has kept for addresses that -b does not name any more.
  void forget_stored(const os::InheritedSockets& handed_in) {
    for (std::size_t i = 0; i < handed_in.fds.size(); ++i) {
      const bool used = std::any_of(opened_.begin(), opened_.end(), [&](const auto& listener) {
        return os::same_socket(listener.fd.get(), handed_in.fds[i]);
      });
      if (!used && os::is_stored_name(handed_in.names[i])) {
        boot_.manager_forgets.push_back(handed_in.names[i]);
      }
    }
  }

  Status bind(const os::BindSpec& spec, std::uint32_t bind_index, bool from_argument,
              const os::InheritedSockets& handed_in) {
    log_->info("binding", "Binding to " +
                              (spec.family == os::BindSpec::Family::kInet && !spec.host.empty()
                                   ? spec.host + ":" + std::to_string(spec.port)
                                   : spec.text) +
                              " with flags " + flags_text(spec.flags));
    Result<std::vector<os::Listener>> listeners =
        os::open_listeners(spec, settings().backlog, handed_in);
    if (!listeners) {
      return listeners.error();
    }
    for (os::Listener& listener : *listeners) {
      wire::ListenerRecord record;
      record.index = static_cast<std::uint32_t>(opened_.size());
      record.text = spec.text;
      record.host = spec.host;
      record.port_given = spec.port;
      record.flags = spec.flags;
      record.address = listener.address;
      record.port = listener.port;
      record.name = spec.name;
      record.bind_index = bind_index;
      record.from_argument = from_argument;
      record.backlog = spec.backlog.value_or(settings().backlog);
      if (spec.for_interception && listener.inode != 0) {
        // Programs remove the file before they bind, and when they end.
        Result<std::string> backup = os::keep_socket_file(spec.host);
        if (!backup) {
          return backup.error();
        }
        record.backup = *backup;
        cleanup_.add(record.backup);
        settings().files.push_back({record.backup, listener.device, listener.inode});
      }
      record.as_stdin = spec.as_stdin;
      records_.push_back(std::move(record));
      opened_.push_back(std::move(listener));
    }
    if (opened_.size() > limits::kMaxListeners) {
      return make_error("-b " + spec.text, "more than " + std::to_string(limits::kMaxListeners) +
                                               " listening sockets");
    }
    return Ok{};
  }

  // Sockets are at 3, 4, ... in workers, unless something that was inherited is there already.
  Status choose_numbers() {
    const auto count = static_cast<std::int32_t>(opened_.size() + settings().worker_binds.size());
    std::int32_t first = 3;
    for (const std::int32_t fd : inherited_) {
      if (fd >= first && fd < first + count + 1) {
        first = fd + 1;
      }
    }
    if (first != 3 && count > 0) {
      log_->error("descriptors_moved",
                  "Einhorn itself inherited descriptors from 3 on, so the sockets of workers begin "
                  "at " +
                      std::to_string(first) + " and LISTEN_FDS is not set");
    }
    settings().first_descriptor = first;
    settings().inherited = inherited_;
    for (const std::int32_t fd : inherited_) {
      settings().control = std::max(settings().control, fd + 1);
    }
    settings().control = std::max(settings().control, first + count + 1);
    for (const wire::ListenerRecord& record : records_) {
      if (settings().intercept != wire::Interception::kOff) {
        log_->info("bound", "Bound " + record.address + " for workers that bind it");
        continue;
      }
      log_->info("bound", "Bound " + record.address + " (descriptor " +
                              std::to_string(first + static_cast<std::int32_t>(record.index)) +
                              " in workers)");
    }
    return Ok{};
  }

  Status replace_arguments() {
    for (std::size_t i = 1; i < program_.arguments.size(); ++i) {
      std::string& argument = program_.arguments[i];
      if (const auto srv = os::find_srv_argument(argument)) {
        for (const auto& [spec, index] : srv_) {
          if (spec == srv->spec) {
            argument = srv->prefix + std::to_string(settings().first_descriptor +
                                                    static_cast<std::int32_t>(index));
          }
        }
        continue;
      }
      if (Status checked = check_placeholders(argument); !checked) {
        return checked;
      }
    }
    return Ok{};
  }

  [[nodiscard]] Status check_placeholders(const std::string& argument) const {
    if (argument.find("{fd}") != std::string::npos && records_.empty() &&
        options_.settings.worker_binds.empty()) {
      return make_error("argument " + argument, "{fd} needs a socket, and there is no -b");
    }
    std::size_t at = 0;
    while ((at = argument.find("{fd:", at)) != std::string::npos) {
      const std::size_t end = argument.find('}', at);
      if (end == std::string::npos) {
        break;
      }
      const std::string name = argument.substr(at + 4, end - at - 4);
      const bool known = std::any_of(records_.begin(), records_.end(), [&](const auto& record) {
        return !name.empty() && record.name == name;
      });
      if (!known) {
        return make_error("argument " + argument,
                          "no -b has name=" + name + ", so {fd:" + name + "} means nothing");
      }
      at = end;
    }
    return Ok{};
  }

  Status make_cgroups() {
    wire::Settings& s = settings();
    if (s.cgroup_memory > 0 || s.cgroup_cpu > 0 || s.cgroup_pids > 0) {
      make_pool_groups(s, kernel_->own_pid(), *log_);
      cleanup_.add_groups(s);
    }
    return Ok{};
  }

  Status write_files() {
    wire::Settings& s = settings();
    Result<os::SocketFile> command =
        os::open_command_socket(s.socket_path, s.socket_mode, s.socket_group);
    if (!command) {
      return of_option("-d/--socket-path", command.error());
    }
    cleanup_.add(s.socket_path);
    Result<os::SocketFile> notify =
        os::open_notify_socket(s.notify_path, s.socket_mode, s.socket_group);
    if (!notify) {
      return notify.error();
    }
    cleanup_.add(s.notify_path);
    s.files.push_back({s.socket_path, command->device, command->inode});
    s.files.push_back({s.notify_path, notify->device, notify->inode});
    for (const os::Listener& listener : opened_) {
      if (listener.spec.family == os::BindSpec::Family::kUnix && listener.inode != 0) {
        s.files.push_back({listener.spec.host, listener.device, listener.inode});
      }
    }
    boot_.descriptors.emplace_back("command", std::move(command->fd));
    boot_.descriptors.emplace_back("notify", std::move(notify->fd));
    log_->info("pidfile", "Writing PID to " + s.pidfile);
    if (Status written = os::write_pid_file(s.pidfile, kernel_->own_pid()); !written) {
      return of_option("-e/--pidfile", written.error());
    }
    cleanup_.add(s.pidfile);
    return Ok{};
  }

  Status write_snapshot() {
    wire::Snapshot snapshot;
    snapshot.settings = settings();
    snapshot.config = options_.config;
    snapshot.programs[Version{0}] = program_;
    for (const wire::ListenerRecord& record : records_) {
      snapshot.listeners[record.index] = record;
    }
    Result<int> file = kernel_->create_memory("einhorn-snapshot");
    if (!file) {
      return file.error();
    }
    boot_.descriptors.emplace_back("snapshot", os::UniqueFd(*file));
    return kernel_->write_at(*file, wire::kJournalStart, wire::encode_journal(snapshot));
  }

  Options options_;
  std::vector<std::string> environment_;
  std::unique_ptr<os::LinuxKernel> kernel_;
  std::unique_ptr<Log> log_;
  wire::Program program_;
  std::vector<std::int32_t> inherited_;
  std::vector<wire::ListenerRecord> records_;
  std::vector<std::pair<std::string, std::uint32_t>> srv_;
  os::UniqueFd lock_;
  Boot boot_;
  std::vector<os::Listener> opened_;
  Cleanup cleanup_{&opened_};
};

}  // namespace

Status fill_in_files(wire::Settings& settings) {
  for (const auto& [path, given, suffix] :
       {std::tuple(&settings.socket_path, &settings.socket_path_given, ".sock"),
        std::tuple(&settings.pidfile, &settings.pidfile_given, ".pid"),
        std::tuple(&settings.lockfile, &settings.lockfile_given, ".lock")}) {
    *path = *given;
    if (given->empty()) {
      Result<std::string> directory = os::temporary_directory(lookup);
      if (!directory) {
        return directory.error();
      }
      *path = *directory + "/einhorn" + (settings.name.empty() ? "" : "-" + settings.name) + suffix;
    }
  }
  settings.notify_path = settings.socket_path + ".notify";
  return Ok{};
}

Result<Boot> boot(Options options, std::vector<std::string> environment,
                  const std::string& script) {
  return Booting(std::move(options), std::move(environment), script).run();
}

}  // namespace einhorn::master
