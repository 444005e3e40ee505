// The log: whole lines, as text or JSON, that nobody can forge and nobody waits for.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/log.h"
#include "os/linux/linux_kernel.h"

namespace einhorn::master {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
    ASSERT_TRUE(kernel.has_value());
    kernel_ = *std::move(kernel);
    std::string pattern = "/tmp/einhorn-log-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  [[nodiscard]] std::string path() const { return folder_ + "/log"; }
  // A log into that file.
  std::unique_ptr<Log> make(std::int32_t verbosity, bool json) {
    auto log = std::make_unique<Log>(*kernel_, 4321, verbosity, json);
    EXPECT_TRUE(log->open(path()).has_value());
    return log;
  }
  std::string content() {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::unique_ptr<os::LinuxKernel> kernel_;
  std::string folder_;
};

TEST_F(LogTest, LinesAreUpstreams) {
  const auto log = make(1, false);
  log->info("launched", "===> Launched 19666 (index: 0)");
  log->error("x", "no");
  log->debug("hidden");
  EXPECT_EQ(content(),
            "[MASTER 4321] INFO: ===> Launched 19666 (index: 0)\n[MASTER 4321] ERROR: no\n");
}

TEST_F(LogTest, VerbosityDecidesWhatIsWritten) {
  const auto log = make(0, false);
  log->debug("a");
  log->set_verbosity(2);
  log->info("x", "b");
  log->error("x", "c");
  EXPECT_FALSE(log->wants(Level::kInfo));
  EXPECT_TRUE(log->wants(Level::kError));
  log->set_verbosity(1);
  log->set_pid(9);
  log->info("x", "d");
  EXPECT_EQ(content(), "[MASTER 4321] DEBUG: a\n[MASTER 4321] ERROR: c\n[MASTER 9] INFO: d\n");
}

TEST_F(LogTest, NobodyCanForgeALine) {
  const auto log = make(1, false);
  log->info("x", "one\n[MASTER 1] ERROR: forged\r\ntwo");
  EXPECT_EQ(content(), "[MASTER 4321] INFO: one [MASTER 1] ERROR: forged  two\n");
}

TEST_F(LogTest, HalfALineSpoilsNoOther) {
  const auto log = make(1, false);
  log->info("x", "one");
  auto* const before = signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit full{content().size() + 10, old.rlim_max};  // as a disk that fills up
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  log->info("x", "two");
  log->info("x", "three");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, before);
  log->info("x", "four");
  EXPECT_EQ(log->dropped(), 2u);
  EXPECT_EQ(content(),
            "[MASTER 4321] INFO: one\n[MASTER 43\n"
            "[MASTER 4321] ERROR: 2 log lines could not be written and are lost\n"
            "[MASTER 4321] INFO: four\n");
}

TEST_F(LogTest, LinesAreCutSoThatTheyStayWhole) {
  const auto log = make(1, false);
  log->info("x", std::string(100'000, 'l'));
  const std::string written = content();
  EXPECT_LE(written.size(), 4096u) << "more is not written as a whole into a pipe";
  EXPECT_GT(written.size(), 3000u);
  EXPECT_THAT(written, EndsWith("l\n"));
}

TEST_F(LogTest, JsonHasOneObjectALine) {
  const auto log = make(1, true);
  log->set_time(WallTime{1'700'000'000'000'000'000});
  LogLine line{Level::kInfo, "exited", "a \"quote\"\nand a line"};
  line.pid = 77;
  line.worker = WorkerId{Slot{3}, Epoch{8}};
  line.version = Version{2};
  log->write(line);
  log->error("plain", "x");
  const std::string written = content();
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 2);
  const std::string first = written.substr(0, written.find('\n'));
  for (const char* part :
       {R"("level":"info")", R"("event":"exited")", R"("master":4321)", R"("worker":77)",
        R"("index":3)", R"("version":2)", R"("message":"a \"quote\"\nand a line")", "2023-11-14"}) {
    EXPECT_THAT(first, HasSubstr(part));
  }
  const std::string second = written.substr(written.find('\n') + 1);
  EXPECT_THAT(second, Not(HasSubstr("\"worker\"")));
  EXPECT_THAT(second, HasSubstr(R"("level":"error")"));
}

TEST_F(LogTest, JsonLinesAreCutTooWhateverTheyHold) {
  const auto log = make(1, true);
  log->info("x", std::string(100'000, '\1'));  // the worst to escape
  const std::string written = content();
  EXPECT_LE(written.size(), 4096u);
  EXPECT_THAT(written, EndsWith("}\n"));
}

TEST_F(LogTest, ALogThatCannotBeOpenedStaysWhereItIs) {
  const auto log = make(1, false);
  const Status refused = log->open(folder_ + "/no/such");
  ASSERT_FALSE(refused.has_value());
  log->info("x", "still here");
  EXPECT_THAT(content(), HasSubstr("still here"));
}

TEST_F(LogTest, IsReopenedByItsName) {
  const auto log = make(1, false);
  log->info("x", "one");
  std::filesystem::rename(path(), folder_ + "/old");
  log->info("x", "two");
  EXPECT_TRUE(log->open(path()).has_value());
  log->info("x", "three");
  EXPECT_EQ(content(), "[MASTER 4321] INFO: three\n");
}

TEST_F(LogTest, LinesThatAreLostAreCountedAndTheCountIsSaid) {
  // Standard error is a pipe that nobody reads, for a while.
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const int saved = dup(2);
  ASSERT_EQ(dup2(ends[1], 2), 2);
  Log log(*kernel_, 1, 1, false);
  for (int i = 0; i < 1000; ++i) {
    log.info("x", std::string(1000, 'f'));
  }
  const std::uint64_t lost = log.dropped();
  std::string buffer(1 << 20, '\0');
  const ssize_t count = read(ends[0], buffer.data(), buffer.size());
  log.info("x", "after");
  const ssize_t rest = read(ends[0], buffer.data(), buffer.size());
  dup2(saved, 2);
  close(saved);
  close(ends[0]);
  close(ends[1]);
  EXPECT_GT(count, 0);
  EXPECT_GT(lost, 100u);
  ASSERT_GT(rest, 0);
  EXPECT_EQ(buffer.substr(0, static_cast<std::size_t>(rest)),
            "[MASTER 1] ERROR: " + std::to_string(lost) +
                " log lines could not be written and are lost\n[MASTER 1] INFO: after\n");
}

}  // namespace
}  // namespace einhorn::master
