#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "client/connection.h"
#include "client/socket_paths.h"

namespace einhorn::client {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ClientTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "client-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = std::filesystem::canonical(pattern).string();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  os::UniqueFd listen_at(const std::string& path, int backlog = 8) {
    os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd.get(), backlog), 0);
    return fd;
  }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  std::string directory_;
};

Deadline soon() { return Deadline::after(milliseconds(20)); }
Deadline enough() { return Deadline::after(std::chrono::seconds(20)); }

Request state_request() {
  Request request;
  request.id = 1;
  request.command = "state";
  request.args = std::vector<std::string>{"a: b", "50%"};
  wire::put(request.extra, "user", "me");
  return request;
}

std::string read_line(int fd) {
  std::string line;
  char byte = 0;
  while (::read(fd, &byte, 1) == 1 && byte != '\n') {
    line += byte;
  }
  return line;
}

void say(int fd, const std::string& text) {
  ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

TEST(Deadline, NeverIsNotWaitedFor) {
  EXPECT_EQ(Deadline::never().poll_milliseconds(), -1);
  EXPECT_FALSE(Deadline::never().passed());
}

TEST(Deadline, InThePastHasPassed) {
  const Deadline deadline = Deadline::after(milliseconds(-5));
  EXPECT_TRUE(deadline.passed());
  EXPECT_EQ(deadline.poll_milliseconds(), 0);
}

TEST(Deadline, BeyondEveryClockIsFarAway) {
  EXPECT_GT(Deadline::after(Duration::max()).poll_milliseconds(), 1'000'000'000);
}

TEST(Deadline, TheEarlierOfTwoIsTheOneThatPassesFirst) {
  const Deadline past = Deadline::after(milliseconds(0));
  const Deadline far = Deadline::after(std::chrono::hours(1));
  const Deadline never = Deadline::never();
  EXPECT_TRUE(Deadline::earlier(past, far).passed());
  EXPECT_TRUE(Deadline::earlier(far, past).passed());
  EXPECT_TRUE(Deadline::earlier(never, past).passed());
  EXPECT_TRUE(Deadline::earlier(past, never).passed());
  EXPECT_EQ(Deadline::earlier(never, never).remaining(), std::nullopt);
}

TEST(ToDocument, HasTheMembersInOrder) {
  const wire::Value document = to_document(state_request());
  ASSERT_NE(document.as_map(), nullptr);
  std::vector<std::string> keys;
  for (const wire::Member& member : *document.as_map()) {
    keys.push_back(*member.first.as_string());
  }
  EXPECT_THAT(keys, ElementsAre("id", "command", "args", "user"));
}

TEST(ToDocument, LeavesOutWhatIsNotSaid) {
  Request request;
  request.command = "ehlo";
  const wire::Value document = to_document(request);
  EXPECT_EQ(document.as_map()->size(), 1U);
}

TEST_F(ClientTest, SendsOneLineAndReadsRepliesInBothLanguages) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  const os::UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(connection->send(state_request(), enough()));
  const Result<wire::Request> seen = wire::parse_request(read_line(peer.get()));
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->document, to_document(state_request()));

  say(peer.get(),
      "--- %0Amessage: one%0Arequest_id: 1%0Await: true%0A\n\n{\"message\":\"two\\n\",");
  Result<wire::Reply> reply = connection->receive(enough());
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->message, "one");
  EXPECT_TRUE(reply->wait);
  EXPECT_EQ(reply->status, "");
  say(peer.get(), "\"status\":\"failed\",\"request_id\":1}\n");
  reply = connection->receive(enough());
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->message, "two\n");
  EXPECT_EQ(reply->status, "failed");
  EXPECT_FALSE(reply->wait);
}

TEST_F(ClientTest, GivesUpAtTheDeadline) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  const Result<wire::Reply> reply = connection->receive(soon());
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code, ETIMEDOUT);
}

TEST_F(ClientTest, WaitsAsOftenAsOneLikes) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  os::UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
  EXPECT_FALSE(connection->wait(soon()).value());
  say(peer.get(), "message: one\nmessage: two\n");
  EXPECT_TRUE(connection->wait(enough()).value());
  EXPECT_EQ(connection->receive(enough()).value().message, "one");
  EXPECT_TRUE(connection->wait(soon()).value());  // it has been received already
  EXPECT_EQ(connection->receive(enough()).value().message, "two");
  EXPECT_FALSE(connection->wait(soon()).value());
  peer.reset();
  EXPECT_TRUE(connection->wait(enough()).value());
  EXPECT_FALSE(connection->receive(enough()).has_value());
}

TEST_F(ClientTest, GivesUpWhenNobodyAccepts) {
  const os::UniqueFd listener = listen_at(path("s"), 0);
  std::vector<Connection> waiting;
  while (waiting.size() < 16) {
    Result<Connection> connection = Connection::open(path("s"), soon());
    if (!connection) {
      EXPECT_EQ(connection.error().code, ETIMEDOUT);
      return;
    }
    waiting.push_back(std::move(connection).value());
  }
  FAIL() << "the backlog never filled";
}

TEST_F(ClientTest, ReadsWhatTheMasterSaidBeforeItHungUp) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  os::UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
  EXPECT_FALSE(connection->is_closed());
  say(peer.get(), "message: go away\nmess");
  peer.reset();
  EXPECT_FALSE(connection->is_closed());
  ASSERT_TRUE(connection->send(state_request(), enough()));
  Result<wire::Reply> reply = connection->receive(enough());
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->message, "go away");
  reply = connection->receive(enough());
  ASSERT_FALSE(reply.has_value());
  EXPECT_THAT(reply.error().message(), HasSubstr("the master closed the connection"));
}

TEST_F(ClientTest, SeesThatTheMasterHungUp) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  os::UniqueFd(::accept(listener.get(), nullptr, nullptr)).reset();
  EXPECT_TRUE(connection->is_closed());
}

TEST_F(ClientTest, RefusesAReplyThatIsNone) {
  const os::UniqueFd listener = listen_at(path("s"));
  for (const char* line : {"just text\n", "{\"wait\": true}\n", "[1, 2]\n", "a: [\n"}) {
    Result<Connection> connection = Connection::open(path("s"), enough());
    ASSERT_TRUE(connection.has_value());
    const os::UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
    say(peer.get(), line);
    const Result<wire::Reply> reply = connection->receive(enough());
    ASSERT_FALSE(reply.has_value()) << line;
    EXPECT_THAT(reply.error().message(), HasSubstr("can't be understood")) << line;
  }
}

TEST_F(ClientTest, RefusesAReplyWithoutEnd) {
  const os::UniqueFd listener = listen_at(path("s"));
  Result<Connection> connection = Connection::open(path("s"), enough());
  ASSERT_TRUE(connection.has_value());
  os::UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
  std::thread flood([&peer] {
    const std::string chunk(65536, 'x');
    while (::send(peer.get(), chunk.data(), chunk.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  const Result<wire::Reply> reply = connection->receive(enough());
  connection = make_error("closed", "");  // ends the flood
  flood.join();
  ASSERT_FALSE(reply.has_value());
  EXPECT_THAT(reply.error().message(), HasSubstr("longer than 8 MB"));
}

TEST_F(ClientTest, SaysWhyItCanNotConnect) {
  const auto code = [](const std::string& where) {
    const Result<Connection> connection = Connection::open(where, enough());
    EXPECT_FALSE(connection.has_value()) << where;
    return connection ? 0 : connection.error().code;
  };
  EXPECT_EQ(code(path("none")), ENOENT);
  EXPECT_EQ(code(""), ENOENT);
  std::ofstream(path("file")) << "x";
  EXPECT_EQ(code(path("file")), ENOTSOCK);
  EXPECT_EQ(code(path("file") + "/below"), ENOTDIR);
  listen_at(path("dead")).reset();
  EXPECT_EQ(code(path("dead")), ECONNREFUSED);
  EXPECT_EQ(code("/" + std::string(108, 'x')), ENAMETOOLONG);
}

TEST_F(ClientTest, ListsTheMastersThatAnswer) {
  const os::UniqueFd plain = listen_at(path("einhorn.sock"));
  const os::UniqueFd web = listen_at(path("einhorn-web.sock"));
  const os::UniqueFd other = listen_at(path("other.sock"));
  listen_at(path("einhorn-dead.sock")).reset();
  std::ofstream(path("einhorn-file.sock")) << "x";
  const std::vector<FoundMaster> found = list_masters(directory_);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].path, path("einhorn-web.sock"));
  EXPECT_EQ(found[0].name, "web");
  EXPECT_EQ(found[1].path, path("einhorn.sock"));
  EXPECT_EQ(found[1].name, std::nullopt);
  EXPECT_THAT(list_masters(path("nowhere")), IsEmpty());
}

TEST_F(ClientTest, LooksForTheSocketInTheTemporaryDirectory) {
  const auto environment = [this](const char* name) -> const char* {
    return std::string(name) == "TMPDIR" ? directory_.c_str() : nullptr;
  };
  EXPECT_EQ(default_socket_path("a", environment).value(), path("einhorn-a.sock"));
  EXPECT_EQ(default_socket_path(std::nullopt, environment).value(), path("einhorn.sock"));
}

TEST(SocketPathIn, NamesTheFile) {
  EXPECT_EQ(socket_path_in("/tmp", std::nullopt), "/tmp/einhorn.sock");
  EXPECT_EQ(socket_path_in("/tmp", "web"), "/tmp/einhorn-web.sock");
  EXPECT_EQ(socket_path_in("/", ""), "/einhorn-.sock");
}

}  // namespace
}  // namespace einhorn::client
