#include "shell/upgrade_view.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace einhorn::shell {

namespace {

constexpr std::chrono::milliseconds kBetweenQuestions{50};
constexpr int kShareOfMaster = 20;  // asking takes at most one part of so many of its time
constexpr int kMostFailures = 3;

}  // namespace

void UpgradeView::begin() {
  line_.clear();
  if (!std::exchange(begun_, true)) {
    const Screen without_bar = setup_.typed ? Screen::kNewLine : Screen::kAsItIs;
    leave_on_interrupt(setup_.on_interrupt, setup_.bar ? Screen::kClearLine : without_bar);
  }
}

void UpgradeView::end() {
  line_.clear();
  if (std::exchange(begun_, false)) {
    leave_on_interrupt(Interrupted::kNothing, setup_.typed ? Screen::kNewLine : Screen::kAsItIs);
  }
}

void UpgradeView::show() {
  if (!begun_ || !setup_.bar) {
    return;
  }
  draw();  // first: the answer may take its time
  if (failures_ < kMostFailures && next_.passed()) {
    ask();
    draw();
  }
}

void UpgradeView::ask() {
  constexpr std::chrono::hours kLong{1};
  const client::Deadline watch = client::Deadline::after(kLong);
  const Result<std::string> state = session_.fetch_state();
  const Duration took = kLong - watch.remaining().value_or(Duration::zero());
  next_ = client::Deadline::after(std::max<Duration>(kBetweenQuestions, took * kShareOfMaster));
  if (!state) {
    ++failures_;
    return;
  }
  Result<std::optional<Progress>> progress = parse_progress(*state);
  if (!progress) {
    failures_ = kMostFailures;
    return;
  }
  failures_ = 0;
  progress_ = *progress;
}

void UpgradeView::draw() {
  const std::string text =
      progress_.has_value() ? draw_progress(*progress_, line_.width()) : std::string();
  if (text.empty()) {
    line_.clear();
  } else {
    line_.show(text);
  }
}

}  // namespace einhorn::shell
