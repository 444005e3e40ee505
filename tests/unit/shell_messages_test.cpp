#include <unistd.h>

#include <cerrno>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/unique_fd.h"
#include "shell/line_reader.h"
#include "shell/no_master.h"
#include "shell/output.h"
#include "shell/session.h"

namespace einhorn::shell {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST(EscapeControls, KeepsTextAndWritesControlsAsTheirNumbers) {
  EXPECT_EQ(escape_controls("a\tb\nc", Newlines::kKept), "a\tb\nc");
  EXPECT_EQ(escape_controls("a\tb\nc", Newlines::kEscaped), "a\tb\\x0ac");
  EXPECT_EQ(escape_controls("\x1b[2J\x7f\r", Newlines::kKept), "\\x1b[2J\\x7f\\x0d");
  EXPECT_EQ(escape_controls("gr\xc3\xbcn", Newlines::kKept), "gr\xc3\xbcn");
}

TEST(DecideEnd, BelievesAMasterThatDoesNotSay) {
  wire::Reply reply;
  EXPECT_EQ(decide_end(reply), CommandEnd::kSucceeded);
  reply.status = "ok";
  EXPECT_EQ(decide_end(reply), CommandEnd::kSucceeded);
  for (const char* status : {"error", "failed", "something new"}) {
    reply.status = status;
    EXPECT_EQ(decide_end(reply), CommandEnd::kFailed) << status;
  }
  reply.status = "could_not_start";
  EXPECT_EQ(decide_end(reply), CommandEnd::kCouldNotStart);
}

TEST(DescribeNoMaster, SaysWhyAndWhere) {
  const std::string text =
      describe_no_master(Error{ENOENT, "connect", ""}, "/t/einhorn.sock", {}, "/t");
  EXPECT_THAT(text, StartsWith("Could not connect to Einhorn master process:\n\n"
                               "  No such file or directory (/t/einhorn.sock)\n\nHINT: "));
  EXPECT_THAT(text, Not(HasSubstr("answer")));
}

TEST(DescribeNoMaster, NamesLivingMastersAsOneWouldCallThem) {
  const std::string text = describe_no_master(Error{ENOTSOCK, "connect", "not a socket"}, "/t/x",
                                              {{"/t/einhorn.sock", std::nullopt},
                                               {"/t/einhorn-web.sock", "web"},
                                               {"/t/einhorn-it's.sock", "it's"},
                                               {"/t/einhornodd.sock", std::nullopt},
                                               {"/other/einhorn-web.sock", "web"}},
                                              "/t");
  EXPECT_THAT(text, HasSubstr("  Not a socket (/t/x)\n"));
  EXPECT_THAT(text, HasSubstr("\n    einhornsh\n"));
  EXPECT_THAT(text, HasSubstr("\n    einhornsh -c web\n"));
  EXPECT_THAT(text, HasSubstr("\n    einhornsh -c 'it'\\''s'\n"));
  EXPECT_THAT(text, HasSubstr("\n    einhornsh -d /t/einhornodd.sock\n"));
  EXPECT_THAT(text, HasSubstr("\n    einhornsh -d /other/einhorn-web.sock\n"));
}

TEST(LineReader, GivesLinesAndTheRest) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const os::UniqueFd reading(ends[0]);
  os::UniqueFd writing(ends[1]);
  const std::string text = "a\n\nb c";
  ASSERT_EQ(::write(writing.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  writing.reset();
  LineReader reader(reading.get());
  for (const std::string expected : {"a", "", "b c"}) {
    const Result<std::optional<std::string>> line = reader.next();
    ASSERT_TRUE(line.has_value());
    EXPECT_EQ(line.value(), expected);
  }
  for (int again = 0; again < 2; ++again) {
    const Result<std::optional<std::string>> line = reader.next();
    ASSERT_TRUE(line.has_value());
    EXPECT_FALSE(line.value().has_value());
  }
}

TEST(LineReader, SaysWhatIsWrongWithTheDescriptor) {
  LineReader reader(-1);
  const Result<std::optional<std::string>> line = reader.next();
  ASSERT_FALSE(line.has_value());
  EXPECT_EQ(line.error().code, EBADF);
}

}  // namespace
}  // namespace einhorn::shell
