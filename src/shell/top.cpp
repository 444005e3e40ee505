#include "shell/top.h"

#include <unistd.h>

#include <csignal>
#include <memory>

#include "client/feed.h"
#include "client/loop.h"
#include "client/socket_paths.h"
#include "shell/output.h"
#include "shell/top_screen.h"
#include "shell/top_view.h"

namespace einhorn::shell {
namespace {

constexpr Duration kSampleEvery = std::chrono::seconds{2};
constexpr Duration kRedrawEvery = std::chrono::seconds{1};
// Many events at once are one picture.
constexpr Duration kSettle = std::chrono::milliseconds{50};

class Top {
 public:
  Top(client::Loop& loop, TopScreen screen, const std::string& socket_path)
      : loop_(loop),
        screen_(std::move(screen)),
        feed_(loop, client::pool_name(socket_path), socket_path, kSampleEvery,
              {[this](const client::Incoming&) { draw_soon(); },
               [this](const client::PoolModel&) {
                 settings_.notice.clear();
                 draw_soon();
               },
               [this](std::string text) {
                 settings_.notice = std::move(text);
                 draw_soon();
               }}) {}

  Status start();

 private:
  void draw();
  void draw_soon();
  void tick();
  void on_keys();
  void on_key(TopScreen::Pressed pressed);
  void on_letter(char letter);

  client::Loop& loop_;
  TopScreen screen_;
  TopSettings settings_;
  client::Feed feed_;
  bool draw_planned_ = false;
};

Status Top::start() {
  Status caught =
      loop_.catch_signals({SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT}, [this](int signal) {
        if (signal == SIGWINCH || signal == SIGCONT) {
          screen_.resize();
          draw();
        } else {
          loop_.stop();
        }
      });
  if (!caught) {
    return caught;
  }
  loop_.watch(STDIN_FILENO, true, false, [this](client::Loop::Ready) { on_keys(); });
  feed_.start();
  tick();
  return Ok{};
}

void Top::tick() {
  draw();
  loop_.after(kRedrawEvery, [this] { tick(); });
}

void Top::draw_soon() {
  if (!draw_planned_) {
    draw_planned_ = true;
    loop_.after(kSettle, [this] { draw(); });
  }
}

void Top::draw() {
  draw_planned_ = false;
  screen_.show(draw_top(feed_.model(), settings_, screen_.rows(), screen_.columns(),
                        client::wall_seconds()));
}

void Top::on_keys() {
  bool any = false;
  while (const std::optional<TopScreen::Pressed> pressed = screen_.next_key()) {
    any = true;
    on_key(*pressed);
  }
  if (!any) {
    loop_.stop();  // readable, and nothing to read: the terminal is gone
    return;
  }
  draw();
}

void Top::on_key(TopScreen::Pressed pressed) {
  const std::size_t page = top_page(settings_, screen_.rows());
  const std::size_t up = settings_.scroll;
  switch (pressed.key) {
    case TopScreen::Key::kUp:
      settings_.scroll -= up > 0 ? 1U : 0U;
      break;
    case TopScreen::Key::kDown:
      ++settings_.scroll;
      break;
    case TopScreen::Key::kPageUp:
      settings_.scroll -= std::min(up, page);
      break;
    case TopScreen::Key::kPageDown:
      settings_.scroll += page;
      break;
    case TopScreen::Key::kHome:
      settings_.scroll = 0;
      break;
    case TopScreen::Key::kEnd:
      settings_.scroll = feed_.model().workers().size();
      break;
    case TopScreen::Key::kLeft:
    case TopScreen::Key::kRight:
      settings_.sort = next_column(settings_.sort, pressed.key == TopScreen::Key::kRight);
      break;
    case TopScreen::Key::kOther:
      on_letter(pressed.letter);
      break;
  }
}

void Top::on_letter(char letter) {
  TopColumn column = TopColumn::kIndex;
  if (column_of(letter, column)) {
    // What is large is looked for first; indexes and pids are read upwards.
    settings_.reversed = column == settings_.sort
                             ? !settings_.reversed
                             : column >= TopColumn::kAge && column != TopColumn::kPing;
    settings_.sort = column;
    settings_.scroll = 0;
    return;
  }
  switch (letter) {
    case 'q':
    case 'Q':
      loop_.stop();
      break;
    case '<':
    case '>':
      settings_.sort = next_column(settings_.sort, letter == '>');
      break;
    case 'w':
      settings_.layout = settings_.layout == TopLayout::kBoth      ? TopLayout::kWorkers
                         : settings_.layout == TopLayout::kWorkers ? TopLayout::kWaterfall
                                                                   : TopLayout::kBoth;
      break;
    case '+':
    case '=':
    case '-':
      settings_.window = step_window(settings_.window, letter != '-');
      break;
    case 'h':
    case '?':
      settings_.layout = settings_.layout == TopLayout::kHelp ? TopLayout::kBoth : TopLayout::kHelp;
      break;
    case 'L' - '@':
      screen_.resize();
      break;
    default:
      break;
  }
}

int fail(const Error& error) {
  [[maybe_unused]] const Status said = Output(STDERR_FILENO).print("einhornsh: " + error.message());
  return 1;
}

}  // namespace

int run_top(const std::string& socket_path, const char* term) {
  Result<std::unique_ptr<client::Loop>> loop = client::Loop::create();
  if (!loop) {
    return fail(loop.error());
  }
  Result<TopScreen> screen = TopScreen::open(term);
  if (!screen) {
    return fail(screen.error());
  }
  Status started = Ok{};
  {
    Top top(**loop, std::move(*screen), socket_path);
    started = top.start();
    if (started) {
      (*loop)->run();
    }
  }
  return started ? 0 : fail(started.error());
}

}  // namespace einhorn::shell
