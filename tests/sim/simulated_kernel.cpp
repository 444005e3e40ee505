#include "sim/simulated_kernel.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;

constexpr int kStandardError = 2;

}  // namespace

SimulatedKernel::SimulatedKernel(World& world, Host& host, ProcessPtr self)
    : world_(world), host_(host), self_(std::move(self)) {}

SimulatedKernel::~SimulatedKernel() = default;

void SimulatedKernel::die() {
  dead_ = true;
  files_.clear();
  watches_.clear();
  mapped_.clear();
}

void SimulatedKernel::step() {
  ++steps_;
  if (strike_in_ > 0 && --strike_in_ == 0) {
    host_.on_strike(*this);
    throw Killed{};
  }
}

void SimulatedKernel::act(const char* verb) {
  world_.expect(
      !frozen_, "one-acts",
      "master " + std::to_string(self_->pid) + " has said that it is frozen, and goes on: " + verb);
}

int SimulatedKernel::adopt(FilePtr file, int at_least) {
  int fd = at_least;
  while (files_.contains(fd)) {
    ++fd;
  }
  files_[fd] = std::move(file);
  return fd;
}

FilePtr SimulatedKernel::file(int fd) const {
  const auto found = files_.find(fd);
  return found == files_.end() ? nullptr : found->second;
}

bool SimulatedKernel::is_ready(int fd, const Watch& watch) const {
  const auto found = files_.find(fd);
  return found != files_.end() && ((watch.interest.read && found->second->readable()) ||
                                   (watch.interest.write && found->second->writable()));
}

bool SimulatedKernel::anything_ready() const {
  return std::any_of(watches_.begin(), watches_.end(),
                     [this](const auto& watch) { return is_ready(watch.first, watch.second); });
}

int SimulatedKernel::open_of(FileKind kind) const {
  return static_cast<int>(std::count_if(files_.begin(), files_.end(), [kind](const auto& entry) {
    return entry.second->kind() == kind;
  }));
}

std::string SimulatedKernel::describe(FileKind kind) const {
  std::string text;
  for (const auto& [fd, open] : files_) {
    if (open->kind() == kind) {
      const auto stream = std::dynamic_pointer_cast<Stream>(open);
      text += " " + std::to_string(fd) +
              (stream ? " (of process " + std::to_string(stream->peer().pid) + ")" : "");
    }
  }
  return text;
}

FilePtr SimulatedKernel::newest(FileKind kind) const {
  FilePtr found;
  for (const auto& [fd, open] : files_) {
    const auto memory = std::dynamic_pointer_cast<Memory>(open);
    if (open->kind() == kind && (memory == nullptr || memory->snapshot) &&
        (found == nullptr || found->number() < open->number())) {
      found = open;
    }
  }
  return found;
}

std::size_t SimulatedKernel::wait(std::span<os::Ready> ready, std::optional<Instant> deadline) {
  if (dead_) {
    return 0;
  }
  if (creating_) {
    host_.run_until_ready(*this, deadline);
    if (dead_) {
      throw Killed{};
    }
  } else if (!anything_ready() && (!deadline || world_.now() < *deadline)) {
    throw Park{deadline};
  }
  check_spinning();
  step();
  steps_at_wait_ = steps_;
  // As epoll does, everybody gets a turn: begin somewhere else each time.
  const auto from = static_cast<int>(world_.random.below(64));
  std::vector<std::pair<int, Watch>> order(watches_.lower_bound(from), watches_.end());
  order.insert(order.end(), watches_.begin(), watches_.lower_bound(from));
  std::size_t count = 0;
  for (const auto& [fd, watch] : order) {
    if (count < ready.size() && is_ready(fd, watch)) {
      const File& file = *files_.at(fd);
      ready[count++] = {watch.token, watch.interest.read && file.readable(),
                        watch.interest.write && file.writable()};
    }
  }
  return count;
}

// Time comes, and the master does nothing about it.
void SimulatedKernel::check_spinning() {
  constexpr int kMostIdleWaits = 50;
  const bool idle = steps_ == steps_at_wait_ && !anything_ready() &&
                    world_.now() - waited_at_ < std::chrono::milliseconds{10};
  waited_at_ = world_.now();
  idle_waits_ = idle ? idle_waits_ + 1 : 0;
  world_.expect(idle_waits_ < kMostIdleWaits, "no-spinning",
                "master " + std::to_string(self_->pid) + " wakes up again and again for nothing");
}

Status SimulatedKernel::watch(int fd, std::uint64_t token, os::Interest interest) {
  if (dead_) {
    return Ok{};
  }
  step();
  if (get<File>(fd, "watch") == nullptr) {
    return Error{EBADF, "epoll_ctl", ""};
  }
  watches_[fd] = {token, interest};
  return Ok{};
}

void SimulatedKernel::unwatch(int fd) { watches_.erase(fd); }

Result<os::Accepted> SimulatedKernel::accept(int listener) {
  if (dead_) {
    return os::Accepted{};
  }
  step();
  act("accept");
  const auto socket = get<Listener>(listener, "accept");
  if (socket->waiting.empty()) {
    return os::Accepted{};
  }
  if (world_.no_descriptors) {
    return Error{EMFILE, "accept", ""};
  }
  std::shared_ptr<Stream> stream = socket->waiting.front();
  socket->waiting.pop_front();
  stream->accept();
  os::Accepted accepted{-1, stream->peer()};
  accepted.fd = adopt(std::move(stream));
  step();
  return accepted;
}

os::Transfer SimulatedKernel::read(int fd, std::span<char> into) {
  if (dead_) {
    return {Kind::kWouldBlock, 0};
  }
  step();
  act("read");
  if (const auto output = std::dynamic_pointer_cast<OutputEnd>(file(fd))) {
    return {output->readable() ? Kind::kClosed : Kind::kWouldBlock, 0};
  }
  const auto stream = get<Stream>(fd, "read");
  std::size_t most = into.size();
  if (world_.faults && world_.random.chance(world_.plan.short_transfers)) {
    most = 1 + world_.random.below(std::min<std::size_t>(most, 40));
  }
  std::string bytes;
  const os::Transfer transfer = stream->read(most, bytes);
  std::copy(bytes.begin(), bytes.end(), into.begin());
  step();
  return transfer;
}

os::Transfer SimulatedKernel::write(int fd, std::string_view bytes) {
  if (dead_) {
    return {Kind::kWouldBlock, 0};
  }
  step();
  act("write");
  const auto stream = get<Stream>(fd, "write");
  host_.on_master_writes(*this, bytes);
  if (world_.faults && world_.random.chance(world_.plan.short_transfers)) {
    bytes = bytes.substr(0, 1 + world_.random.below(40));
  }
  const os::Transfer transfer = stream->write(bytes);
  step();
  return transfer;
}

os::Message SimulatedKernel::receive(int socket) {
  os::Message message;
  message.kind = Kind::kWouldBlock;
  if (dead_) {
    return message;
  }
  step();
  if (const auto datagrams = std::dynamic_pointer_cast<DatagramSocket>(file(socket))) {
    if (!datagrams->waiting.empty()) {
      message.kind = Kind::kDone;
      message.text = datagrams->waiting.front().text;
      message.sender = datagrams->waiting.front().sender;
      datagrams->waiting.pop_front();
    }
    step();
    return message;
  }
  if (const auto stream = std::dynamic_pointer_cast<Stream>(file(socket))) {
    message.kind = stream->read(65536, message.text).kind;
    for (FilePtr& passed : stream->take_files()) {
      message.fds.push_back(adopt(std::move(passed)));
    }
    return message;
  }
  const auto end = get<PacketEnd>(socket, "receive");
  Packet packet;
  message.kind = end->receive(packet);
  message.text = std::move(packet.text);
  message.sender = packet.sender;
  if (message.kind == Kind::kClosed || message.text.starts_with("X_EINHORN_THAW")) {
    frozen_ = false;
  }
  for (FilePtr& passed : packet.files) {
    message.fds.push_back(adopt(std::move(passed)));
  }
  step();
  return message;
}

os::Message SimulatedKernel::peek(int socket) {
  os::Message message;
  message.kind = Kind::kWouldBlock;
  if (dead_) {
    return message;
  }
  step();
  act("peek");
  const auto end = get<PacketEnd>(socket, "peek");
  if (const Packet* next = end->next()) {
    message.kind = Kind::kDone;
    message.text = next->text;
    message.sender = next->sender;
  } else if (end->readable()) {
    message.kind = Kind::kClosed;
  }
  return message;
}

Status SimulatedKernel::ask_for_senders(int socket) {
  if (!dead_) {
    step();
    get<PacketEnd>(socket, "ask_for_senders");
  }
  return Ok{};
}

os::Transfer SimulatedKernel::send(int socket, std::string_view text, std::span<const int> fds) {
  if (dead_) {
    return {Kind::kWouldBlock, 0};
  }
  step();
  Packet packet{std::string(text), {}, {self_->pid, 0, 0}, {}};
  if (text.starts_with("FORK=")) {
    packet.asked_for = host_.worker_asked_for(*this, text);
  }
  for (const int fd : fds) {
    packet.files.push_back(get<File>(fd, "send"));
  }
  if (const auto stream = std::dynamic_pointer_cast<Stream>(file(socket))) {
    return stream->send(text, std::move(packet.files));
  }
  const auto end = get<PacketEnd>(socket, "send");
  const os::Transfer transfer{end->send(std::move(packet)), text.size()};
  if (transfer.kind == Kind::kDone) {
    frozen_ = frozen_ || text == "X_EINHORN_FROZEN=1";
    world_.expect(has_read_ || text != "READY=1", "handoff",
                  "a master says that it is ready before it has read the snapshot");
  }
  step();
  return transfer;
}

Result<std::pair<int, int>> SimulatedKernel::socket_pair() {
  if (dead_) {
    return Error{EMFILE, "socketpair", ""};
  }
  step();
  if (world_.no_descriptors) {
    return Error{EMFILE, "socketpair", ""};
  }
  auto [one, other] = PacketEnd::pair(world_.census, world_.plan.packets);
  const int first = adopt(std::move(one));
  return std::pair(first, adopt(std::move(other)));
}

// Port 80 is the first service, and so on.
Result<std::vector<os::OpenedListener>> SimulatedKernel::open_listeners(const os::BindSpec& spec,
                                                                        int backlog) {
  static_cast<void>(backlog);
  if (dead_) {
    return Error{EIO, "bind " + spec.text, ""};
  }
  step();
  if (world_.no_descriptors) {
    return Error{EMFILE, "bind " + spec.text, ""};
  }
  const int fd = adopt(std::make_shared<Service>(world_.census, spec.port - 80U));
  return std::vector<os::OpenedListener>{{fd, spec.text, spec.port, 0, 0}};
}

Status SimulatedKernel::make_cgroup(const std::string& directory,
                                    const os::CgroupFiles& /*files*/) {
  if (dead_) {
    return Ok{};
  }
  step();
  if (world_.no_descriptors) {
    return Error{EMFILE, "write to " + directory, ""};
  }
  world_.groups.try_emplace(directory, 0);
  step();
  return Ok{};
}

// Like the kernel: neither with processes nor with groups beneath.
bool SimulatedKernel::remove_cgroup(const std::string& directory) {
  if (dead_) {
    return false;
  }
  step();
  const auto found = world_.groups.find(directory);
  if (found == world_.groups.end()) {
    return true;
  }
  const auto next = std::next(found);
  if (found->second > 0 ||
      (next != world_.groups.end() && next->first.starts_with(directory + "/"))) {
    return false;
  }
  world_.groups.erase(found);
  return true;
}

std::vector<std::string> SimulatedKernel::list_cgroups(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& [path, members] : world_.groups) {
    if (path.starts_with(directory + "/")) {
      names.push_back(path.substr(directory.size() + 1));
    }
  }
  return names;
}

Result<std::pair<int, int>> SimulatedKernel::pipe() {
  if (dead_) {
    return Error{EMFILE, "pipe2", ""};
  }
  step();
  if (world_.no_descriptors) {
    return Error{EMFILE, "pipe2", ""};
  }
  auto ends = std::make_shared<OutputEnd::Ends>();
  const int reader = adopt(std::make_shared<OutputEnd>(world_.census, ends, false));
  const int writer = adopt(std::make_shared<OutputEnd>(world_.census, ends, true));
  return std::pair(reader, writer);
}

// Called by destructors too, so nothing is thrown but where a turn ends.
void SimulatedKernel::close(int fd) {
  const auto found = dead_ ? files_.end() : files_.find(fd);
  if (found == files_.end()) {
    if (!dead_) {
      world_.report("descriptors",
                    "close of descriptor " + std::to_string(fd) + ", which is not open");
    }
    return;
  }
  if (watches_.erase(fd) > 0 && !leaving_ && !creating_ && found->second.use_count() > 1) {
    // epoll forgets a descriptor only when nobody else has the same open file.
    world_.report("descriptors", "descriptor " + std::to_string(fd) + " (" +
                                     std::string(name(found->second->kind())) +
                                     ") was closed while it was watched and open elsewhere");
  }
  files_.erase(found);
}

Result<int> SimulatedKernel::raise(int fd, int least) {
  if (dead_) {
    return Error{EMFILE, "raise", ""};
  }
  step();
  FilePtr same = get<File>(fd, "raise");
  if (same == nullptr) {
    return Error{EBADF, "fcntl F_DUPFD_CLOEXEC", ""};
  }
  watches_.erase(fd);
  const int raised = adopt(std::move(same), least);
  files_.erase(fd);
  return raised;
}

os::Transfer SimulatedKernel::write_line(int fd, std::string_view line) {
  if (dead_) {
    return {Kind::kDone, line.size()};
  }
  if (const auto pipe = std::dynamic_pointer_cast<Stream>(file(fd))) {
    return pipe->room() < line.size() ? os::Transfer{Kind::kWouldBlock, 0} : pipe->write(line);
  }
  if (fd != kStandardError) {
    get<LogFile>(fd, "write_line");
  }
  if (world_.faults && world_.random.chance(world_.plan.log_full)) {
    return {Kind::kWouldBlock, 0};
  }
  world_.note("log", line);
  step();
  return {Kind::kDone, line.size()};
}

Result<int> SimulatedKernel::open_log(const std::string& path) {
  if (dead_) {
    return Error{EIO, "open " + path, ""};
  }
  step();
  if (world_.no_descriptors || (world_.faults && world_.random.chance(world_.plan.log_full))) {
    return Error{world_.no_descriptors ? EMFILE : ENOSPC, "open " + path, ""};
  }
  return adopt(std::make_shared<LogFile>(world_.census));
}

Result<int> SimulatedKernel::create_memory(const char* name) {
  if (dead_) {
    return Error{EMFILE, name, ""};
  }
  step();
  if (world_.snapshot_full && world_.random.chance(500)) {
    world_.lose_snapshot();
    return Error{ENFILE, std::string("memfd_create ") + name, ""};
  }
  auto memory = std::make_shared<Memory>(world_.census);
  memory->snapshot = std::string_view(name) == "einhorn-snapshot";
  const int fd = adopt(std::move(memory));
  step();
  return fd;
}

Status SimulatedKernel::write_at(int fd, std::uint64_t offset, std::string_view bytes) {
  if (dead_) {
    return Ok{};
  }
  act("write_at");
  const auto memory = get<Memory>(fd, "write_at");
  if (memory == nullptr) {
    return Error{EBADF, "write to memory file", ""};
  }
  if (strike_in_ == 1 && world_.plan.torn_writes && !bytes.empty()) {
    memory->write(offset, bytes.substr(0, world_.random.below(bytes.size())));
  }
  step();
  if (world_.snapshot_full) {
    if (!bytes.empty() && world_.random.chance(500)) {
      memory->write(offset, bytes.substr(0, world_.random.below(bytes.size())));
    }
    world_.lose_snapshot();
    return Error{ENOSPC, "write to memory file", ""};
  }
  memory->write(offset, bytes);
  if (offset == Memory::kPage) {
    memory->written_after = world_.snapshots_lost;  // a whole snapshot
    memory->fresh = bytes.size();
  }
  step();
  return Ok{};
}

Result<std::string> SimulatedKernel::read_all(int fd) {
  if (dead_) {
    return std::string();
  }
  step();
  has_read_ = true;
  const auto memory = get<Memory>(fd, "read_all");
  if (memory == nullptr) {
    return Error{EBADF, "fstat of memory file", ""};
  }
  std::string content = memory->content();
  if (memory->snapshot) {
    host_.on_master_reads(content);
  }
  return content;
}

Result<os::SpawnNote*> SimulatedKernel::map_note(int fd) {
  if (dead_) {
    return Error{ENOMEM, "mmap of memory file", ""};
  }
  step();
  auto memory = get<Memory>(fd, "map_note");
  if (memory == nullptr) {
    return Error{EBADF, "fstat of memory file", ""};
  }
  os::SpawnNote* const note = memory->map();
  mapped_.emplace_back(note, std::move(memory));
  return note;
}

void SimulatedKernel::unmap_note(os::SpawnNote* note) {
  const auto found = std::find_if(mapped_.begin(), mapped_.end(),
                                  [note](const auto& entry) { return entry.first == note; });
  if (found != mapped_.end()) {
    mapped_.erase(found);
  } else if (!dead_) {
    world_.report("descriptors", "a page was unmapped that was not mapped");
  }
}

std::optional<os::AcceptQueue> SimulatedKernel::accept_queue(int listener) {
  const FilePtr open = file(listener);
  if (const auto command = std::dynamic_pointer_cast<Listener>(open)) {
    return os::AcceptQueue{static_cast<std::uint32_t>(command->waiting.size()), Listener::kBacklog};
  }
  if (std::dynamic_pointer_cast<Service>(open) != nullptr) {
    return os::AcceptQueue{world_.queued, Listener::kBacklog};
  }
  return std::nullopt;
}

std::optional<int> SimulatedKernel::own_program_unless(Pid pid) {
  const ProcessPtr process = world_.find(pid);
  if (dead_ || (pid != 0 && (process == nullptr || process->program == self_->program))) {
    return std::nullopt;
  }
  step();
  return adopt(std::make_shared<Program>(world_.census, self_->program));
}

// Nobody removes a simulated socket's file.
Result<std::optional<os::SocketMade>> SimulatedKernel::remake_socket(const std::string& path,
                                                                     bool listening,
                                                                     std::uint32_t mode,
                                                                     const std::string& group) {
  static_cast<void>(path);
  static_cast<void>(listening);
  static_cast<void>(mode);
  static_cast<void>(group);
  return std::optional<os::SocketMade>();
}

void SimulatedKernel::remove_file(const std::string& path, std::uint64_t device,
                                  std::uint64_t inode) {
  static_cast<void>(device);
  static_cast<void>(inode);
  world_.note("kernel", "removes " + path);
}

Result<std::string> SimulatedKernel::resolve_directory(const std::string& path) {
  if (dead_) {
    return Error{EIO, "directory " + path, ""};
  }
  step();
  return host_.deploy();
}

Result<std::string> SimulatedKernel::find_program(const std::string& name, const std::string& path,
                                                  const std::string& directory) {
  static_cast<void>(path);
  static_cast<void>(directory);
  return "/usr/bin/" + name;
}

}  // namespace einhorn::sim
