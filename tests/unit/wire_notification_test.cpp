// Datagrams on NOTIFY_SOCKET.
#include <gtest/gtest.h>

#include "base/limits.h"
#include "wire/notification.h"

namespace einhorn::wire {
namespace {

TEST(Notification, IsEveryLineThatIsKnown) {
  const Notification all =
      parse_notification("STATUS=first\nREADY=1\nMAINPID=7\nSTATUS=last\nWATCHDOG=1\n");
  EXPECT_TRUE(all.ready);
  EXPECT_TRUE(all.alive);
  EXPECT_EQ(all.status, "last");
}

TEST(Notification, IsNothingElse) {
  for (const char* text : {"", "\n\n", "READY=0", "READY=11", " READY=1", "READY=1 ", "ready=1",
                           "WATCHDOG=triggers", "WATCHDOG=", "STATU=x", "=", "\0"}) {
    const Notification said = parse_notification(text);
    EXPECT_FALSE(said.ready) << text;
    EXPECT_FALSE(said.alive) << text;
    EXPECT_FALSE(said.status.has_value()) << text;
  }
}

TEST(Notification, StatusIsTextThatCanBeShown) {
  EXPECT_EQ(parse_notification("STATUS=").status, "");
  EXPECT_EQ(parse_notification("STATUS=a=b, 7 \xc3\xa9").status, "a=b, 7 \xc3\xa9");
  // What a terminal would act on: the byte ESC, and U+009B, which means the same as ESC [.
  EXPECT_EQ(parse_notification("STATUS=\x1b[2J\ttab\x7f\xc2\x9b").status, "?[2J?tab??");
  EXPECT_EQ(parse_notification("STATUS=\xff!").status, "\xef\xbf\xbd!");
}

TEST(Notification, StatusIsCutBetweenCharacters) {
  constexpr std::size_t kMost = limits::kMaxStatusBytes;
  EXPECT_EQ(parse_notification("STATUS=" + std::string(kMost + 1, 'x')).status,
            std::string(kMost, 'x'));
  const std::string odd = std::string(kMost - 1, 'x');
  EXPECT_EQ(parse_notification("STATUS=" + odd + "\xc3\xa9").status, odd);
}

TEST(Notification, AWorkerMaySayThatItHangs) {
  const Notification said = parse_notification("WATCHDOG=trigger\n");
  EXPECT_TRUE(said.hung);
  EXPECT_FALSE(said.alive);
}

}  // namespace
}  // namespace einhorn::wire
