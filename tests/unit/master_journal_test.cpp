// The journal on the real kernel's memory files: what is written can be read, also after a failure.
#include <unistd.h>

#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "master/journal.h"
#include "os/linux/linux_kernel.h"

namespace einhorn::master {
namespace {

class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
    ASSERT_TRUE(kernel.has_value());
    kernel_ = *std::move(kernel);
    journal_ = std::make_unique<Journal>(*kernel_, [this](int fd) { published_.push_back(fd); });
    snapshot_.settings.name = "first";
  }
  [[nodiscard]] wire::Snapshot read() const {
    const Result<std::string> bytes = kernel_->read_all(journal_->fd());
    EXPECT_TRUE(bytes.has_value());
    Result<wire::Snapshot> snapshot = wire::decode_snapshot(bytes ? *bytes : "");
    EXPECT_TRUE(snapshot.has_value()) << (snapshot ? "" : snapshot.error().message());
    return snapshot ? std::move(*snapshot) : wire::Snapshot{};
  }
  static std::string worker(std::uint64_t epoch, const std::string& says) {
    wire::WorkerRecord record;
    record.worker.id = {Slot{1}, Epoch{epoch}};
    record.worker.status_text = says;
    return wire::encode_entry(record);
  }

  std::unique_ptr<os::LinuxKernel> kernel_;
  std::unique_ptr<Journal> journal_;
  std::vector<int> published_;
  wire::Snapshot snapshot_;
};

TEST_F(JournalTest, HasNothingBeforeTheFirstRewrite) {
  EXPECT_EQ(journal_->fd(), -1);
  EXPECT_EQ(journal_->note(), nullptr);
  EXPECT_FALSE(journal_->broken());
}

TEST_F(JournalTest, ARewriteIsPublishedAndReadable) {
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  EXPECT_THAT(published_, ::testing::ElementsAre(journal_->fd()));
  EXPECT_EQ(read().settings.name, "first");
  ASSERT_NE(journal_->note(), nullptr);
  EXPECT_EQ(journal_->note()->pid, 0);
}

TEST_F(JournalTest, WhatIsAppendedIsReadInItsOrder) {
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  ASSERT_TRUE(journal_->append(worker(5, "early")).has_value());
  ASSERT_TRUE(journal_->append(worker(6, "other")).has_value());
  ASSERT_TRUE(journal_->append(worker(5, "late")).has_value());
  EXPECT_EQ(read().workers.at(Epoch{5}).worker.status_text, "late");
  EXPECT_EQ(read().workers.size(), 2u);
  ASSERT_TRUE(journal_->append(wire::encode_gone({Slot{1}, Epoch{5}})).has_value());
  EXPECT_FALSE(read().workers.contains(Epoch{5}));
  EXPECT_EQ(published_.size(), 1u) << "the guard has that file already";
}

TEST_F(JournalTest, ARewriteStartsANewFileWithANoteOfItsOwn) {
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  journal_->note()->epoch = 77;
  ASSERT_TRUE(journal_->append(worker(5, "old")).has_value());
  const int kept = dup(journal_->fd());  // as the guard keeps it
  snapshot_.settings.name = "second";
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  EXPECT_EQ(published_.size(), 2u);
  EXPECT_EQ(read().settings.name, "second");
  EXPECT_TRUE(read().workers.empty());
  EXPECT_EQ(journal_->note()->epoch, 0u);
  const Result<std::string> old = kernel_->read_all(kept);
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(wire::decode_snapshot(*old)->settings.name, "first") << "the old one is untouched";
  close(kept);
}

TEST_F(JournalTest, IsBloatedWhenMostOfItIsOutdated) {
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  const std::string entry = worker(5, std::string(200, 's'));
  std::size_t appended = 0;
  while (!journal_->bloated()) {
    ASSERT_TRUE(journal_->append(entry).has_value());
    appended += entry.size();
    ASSERT_LT(appended, 10 * limits::kSnapshotSlackBytes) << "it is never rewritten";
  }
  EXPECT_GT(appended, limits::kSnapshotSlackBytes);
  EXPECT_EQ(read().workers.size(), 1u);
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  EXPECT_FALSE(journal_->bloated());
}

TEST_F(JournalTest, AFailedWriteIsMendedByARewrite) {
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  ASSERT_TRUE(journal_->append(worker(5, "kept")).has_value());
  const int file = journal_->fd();
  const int saved = dup(file);
  close(file);  // whatever makes a write fail
  EXPECT_FALSE(journal_->append(worker(6, "lost")).has_value());
  EXPECT_TRUE(journal_->broken());
  EXPECT_TRUE(journal_->bloated()) << "so that the next change rewrites";
  ASSERT_EQ(dup2(saved, file), file);
  close(saved);
  EXPECT_TRUE(read().workers.contains(Epoch{5}));
  ASSERT_TRUE(journal_->rewrite(snapshot_).has_value());
  EXPECT_FALSE(journal_->broken());
  ASSERT_TRUE(journal_->append(worker(6, "again")).has_value());
  EXPECT_TRUE(read().workers.contains(Epoch{6}));
}

}  // namespace
}  // namespace einhorn::master
