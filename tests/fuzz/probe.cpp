// What whoever is probed answers, in pieces; and a message of the master to the prober.
#include <string>
#include <string_view>

#include "fuzz.h"
#include "probe/answer.h"
#include "probe/attempt.h"

namespace einhorn::fuzz {
namespace {

using probe::Answer;

void holds_answer(const Answer& answer, std::string_view text, bool ended) {
  const bool status = answer.kind == Answer::Kind::kStatus;
  holds(status == (answer.status != 0), "a status comes with its kind", text);
  holds(!status || (answer.status >= 100 && answer.status <= 999), "a status has three digits",
        text);
  holds(!status || text.starts_with("HTTP/1."), "only HTTP has a status", text);
  holds(!status || text.find(std::to_string(answer.status)) < text.find('\n'),
        "a status is in the first line", text);
  holds(answer.kind != Answer::Kind::kMore || (!ended && text.size() < probe::kMostAnswer),
        "there is an end to waiting", text);
  holds((answer.kind == Answer::Kind::kNothing) == (ended && text.empty()), "silence is nothing",
        text);
  if (answer.kind == Answer::Kind::kStatus || !answer.line.empty()) {
    holds_for_people(answer.line);
  }
}

}  // namespace

void run(std::string_view input) {
  Choices choices(input);
  const std::size_t piece = std::size_t{choices.byte()} + 1;
  const std::string_view text = choices.rest();
  if (const auto job = probe::parse_job(std::string(text))) {
    const std::string again =
        "PROBE=" + std::to_string(job->id) + "\ntimeout_ms=" + std::to_string(job->timeout_ms) +
        "\nkind=" + job->kind + "\naddress=" + job->address + "\npath=" + job->path +
        "\ncommand=" + job->command + "\npid=" + job->pid + "\nindex=" + job->index;
    const auto same = probe::parse_job(again);
    holds(same && same->id == job->id && same->kind == job->kind && same->address == job->address &&
              same->path == job->path && same->command == job->command && same->pid == job->pid &&
              same->timeout_ms == job->timeout_ms && same->index == job->index,
          "a job reads back as the same", text);
  }

  const Answer whole = probe::read_answer(text, true);
  holds_answer(whole, text, true);
  for (std::size_t end = 0; end < text.size();) {
    end = std::min(end + piece, text.size());
    const std::string_view so_far = text.substr(0, end);
    const Answer answer = probe::read_answer(so_far, false);
    holds_answer(answer, so_far, false);
    if (answer.kind == Answer::Kind::kMore) {
      continue;
    }
    // The verdict is there: what else comes changes nothing, unless the line was too long to wait.
    holds(so_far.find('\n') == std::string_view::npos ||
              (answer.kind == whole.kind && answer.status == whole.status &&
               answer.line == whole.line),
          "the same verdict however it is cut", text);
    return;
  }
}

}  // namespace einhorn::fuzz
