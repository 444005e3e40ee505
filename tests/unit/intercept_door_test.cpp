#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "intercept/door.h"
#include "intercept/processes.h"
#include "os/door.h"

namespace einhorn::intercept {
namespace {

using interposed::Question;

std::vector<std::uint8_t> bytes_of(Question question, const std::string& address) {
  std::vector<std::uint8_t> all(sizeof(question) + address.size());
  std::memcpy(all.data(), &question, sizeof(question));
  std::copy(address.begin(), address.end(), all.begin() + sizeof(question));
  return all;
}

Question bind_question(std::size_t length) {
  Question question{};
  std::memcpy(question.magic, interposed::kQuestionMagic, sizeof(question.magic));
  std::memcpy(question.token, "0123456789abcdef0123456789ABCDEF", sizeof(question.token));
  question.epoch = 7;
  question.slot = 2;
  question.call = interposed::kBind;
  question.fd = 5;
  question.close_on_exec = 1;
  question.length = static_cast<std::uint32_t>(length);
  return question;
}

std::string loopback(std::uint16_t port) {
  SocketAddress address;
  address.kind = SocketAddress::Kind::kInet;
  address.ip = {127, 0, 0, 1};
  address.port = port;
  return encode_address(address);
}

TEST(Question, IsReadAsItWasWritten) {
  const std::string address = loopback(3000);
  const auto bytes = bytes_of(bind_question(address.size()), address);
  const auto asked = parse_question(bytes);
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->worker, Epoch{7});
  EXPECT_EQ(asked->slot, 2U);
  EXPECT_EQ(asked->token, "0123456789abcdef0123456789ABCDEF");
  EXPECT_FALSE(asked->is_listen);
  EXPECT_EQ(asked->fd, 5);
  EXPECT_TRUE(asked->close_on_exec);
  EXPECT_EQ(format(asked->address), "127.0.0.1:3000");
}

TEST(Question, OthersAreNone) {
  const std::string address = loopback(3000);
  const auto refused = [&](auto change) {
    Question question = bind_question(address.size());
    change(question);
    return !parse_question(bytes_of(question, address));
  };
  EXPECT_FALSE(refused([](Question&) {}));
  EXPECT_TRUE(refused([](Question& q) { q.magic[6] = '2'; }));
  EXPECT_TRUE(refused([](Question& q) { q.call = 3; }));
  EXPECT_TRUE(refused([](Question& q) { q.fd = -1; }));
  EXPECT_TRUE(refused([](Question& q) { q.length -= 1; }));
  EXPECT_TRUE(refused([](Question& q) { q.length += 1; }));
  EXPECT_TRUE(refused([](Question& q) { q.length = 0xffffffffU; }));
  auto bytes = bytes_of(bind_question(0), "");
  EXPECT_TRUE(parse_question(bytes));
  bytes.pop_back();
  EXPECT_FALSE(parse_question(bytes));
  EXPECT_FALSE(parse_question({}));
  EXPECT_FALSE(parse_question(bytes_of(bind_question(129), std::string(129, 'x'))));
}

TEST(DoorToken, IsEachWorkersOwn) {
  const std::string secret = "00112233445566778899aabbccddeeff";
  std::set<std::string> tokens;
  for (std::uint64_t epoch = 0; epoch < 100; ++epoch) {
    for (std::uint32_t slot = 0; slot < 10; ++slot) {
      const std::string token = os::door_token(secret, epoch, slot);
      EXPECT_EQ(token.size(), interposed::kTokenBytes);
      tokens.insert(token);
    }
  }
  EXPECT_EQ(tokens.size(), 1000U);
  EXPECT_EQ(os::door_token(secret, 3, 4), os::door_token(secret, 3, 4));
  EXPECT_NE(os::door_token("10112233445566778899aabbccddeeff", 3, 4), os::door_token(secret, 3, 4));
  EXPECT_NE(os::door_token("00112233445566778899aabbccddeefe", 3, 4), os::door_token(secret, 3, 4));
}

TEST(EpollEntries, AreReadFromWhatTheKernelWrites) {
  const auto entries = parse_epoll_entries(
      "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n"
      "tfd:        4 events:       19 data:                4  pos:0 ino:1a2b sdev:8\n"
      "tfd:       17 events: 8000001d data: ffffffffffffffff  pos:0 ino:ff sdev:8\n");
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].fd, 4);
  EXPECT_EQ(entries[0].inode, 0x1a2bU);
  EXPECT_EQ(entries[1].fd, 17);
  EXPECT_EQ(entries[1].inode, 0xffU);
  EXPECT_TRUE(parse_epoll_entries("tfd: x ino:5\ntfd: 4\nino:5").empty());
}

}  // namespace
}  // namespace einhorn::intercept
