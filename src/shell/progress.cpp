#include "shell/progress.h"

#include <algorithm>

#include "base/limits.h"
#include "wire/json.h"

namespace einhorn::shell {

namespace {

constexpr std::size_t kLeastCells = 5;
constexpr std::size_t kMostCells = 40;

std::optional<std::int64_t> integer(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  if (value == nullptr || value->as_integer() == nullptr) {
    return std::nullopt;
  }
  return *value->as_integer();
}

bool is_ready(const wire::Value& worker, std::int64_t version) {
  const wire::Value* state = worker.find("state");
  return state != nullptr && state->as_string() != nullptr && *state->as_string() == "ready" &&
         integer(worker, "version") == version;
}

std::string words(const Progress& progress) {
  std::string text = std::to_string(progress.ready) + '/' + std::to_string(progress.number);
  text += progress.number == 1 ? " worker" : " workers";
  text += " of version " + std::to_string(progress.version) + " ready";
  if (progress.failures > 0) {
    text += ", " + std::to_string(progress.failures) + " failed";
  }
  return text + (progress.going_back ? " (rolling back)" : "");
}

std::size_t filled_cells(const Progress& progress, std::size_t cells) {
  if (progress.ready >= progress.number) {
    return cells;
  }
  const double part = static_cast<double>(std::max<std::int64_t>(0, progress.ready)) /
                      static_cast<double>(progress.number);
  return std::min(cells, static_cast<std::size_t>(part * static_cast<double>(cells)));
}

}  // namespace

Result<std::optional<Progress>> parse_progress(std::string_view state_json) {
  const Error odd = make_error("read the state", "it is not what `state json` gives");
  wire::YamlLimits limits;
  limits.nodes = limits::kMaxPendingOutput;  // as many as there can be bytes
  const Result<wire::Value> state = wire::parse_json(state_json, limits);
  if (!state) {
    return odd;
  }
  const std::optional<std::int64_t> number = integer(*state, "number");
  const wire::Value* upgrade = state->find("upgrade");
  const wire::Value* workers = state->find("workers");
  if (!number || upgrade == nullptr || workers == nullptr || workers->as_list() == nullptr) {
    return odd;
  }
  if (upgrade->is_null()) {
    return std::optional<Progress>();
  }
  const std::optional<std::int64_t> version = integer(*upgrade, "to");
  if (!version) {
    return odd;
  }
  Progress progress;
  progress.version = *version;
  progress.number = *number;
  progress.failures = integer(*upgrade, "failures").value_or(0);
  const wire::Value* going_back = upgrade->find("going_back");
  progress.going_back =
      going_back != nullptr && going_back->as_bool() != nullptr && *going_back->as_bool();
  const wire::List& list = *workers->as_list();
  progress.ready = std::count_if(list.begin(), list.end(), [&](const wire::Value& worker) {
    return is_ready(worker, progress.version);
  });
  return std::optional<Progress>(progress);
}

std::string draw_progress(const Progress& progress, std::size_t width) {
  const std::string text = words(progress);
  constexpr std::size_t kFrame = 3;  // [] and a space
  if (text.size() + kFrame + kLeastCells > width) {
    return text.substr(0, width);
  }
  const std::size_t cells = std::min(kMostCells, width - text.size() - kFrame);
  const std::size_t filled = filled_cells(progress, cells);
  return '[' + std::string(filled, '#') + std::string(cells - filled, '-') + "] " + text;
}

}  // namespace einhorn::shell
