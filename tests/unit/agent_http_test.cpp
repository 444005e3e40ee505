// Requests out of bytes, in whatever pieces they come.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/http.h"

namespace einhorn::agent {
namespace {

using ::testing::SizeIs;

struct Heard {
  std::vector<HttpRequest> requests;
  int failed = 0;
};

// As the server does it.
void hear(HttpParser& parser, std::string& input, std::string_view piece, Heard& heard) {
  input += piece;
  while (std::optional<HttpRequest> request = parser.feed(input, heard.failed)) {
    heard.requests.push_back(std::move(*request));
  }
}

Heard hear_in_pieces(std::string_view bytes, std::size_t size) {
  HttpParser parser;
  Heard heard;
  std::string input;
  for (std::size_t at = 0; at < bytes.size() && heard.failed == 0; at += size) {
    hear(parser, input, bytes.substr(at, size), heard);
  }
  return heard;
}

Heard hear_in_two(std::string_view bytes, std::size_t first) {
  HttpParser parser;
  Heard heard;
  std::string input;
  hear(parser, input, bytes.substr(0, first), heard);
  if (heard.failed == 0) {
    hear(parser, input, bytes.substr(first), heard);
  }
  return heard;
}

std::string post(const std::string& headers, const std::string& rest) {
  return "POST /api/control HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n" + rest;
}

std::string in_chunks(const std::string& chunks) {
  return post("Transfer-Encoding: chunked\r\n", chunks);
}

TEST(HttpTest, ARequestMayComeInPieces) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ""},
      {post("Content-Length: 5\r\n", "hello"), "hello"},
      {in_chunks("0\r\n\r\n"), ""},
      {in_chunks("00\r\n\r\n"), ""},
      {in_chunks("0;a=b\r\n\r\n"), ""},
      {in_chunks("0\r\nA: b\r\nC: d\r\n\r\n"), ""},
      {in_chunks("1\r\nh\r\n0\r\n\r\n"), "h"},
      {in_chunks("1\r\nh\r\n4;x\r\nello\r\n0\r\nA: b\r\n\r\n"), "hello"},
      {in_chunks("5\r\n\r\n0\r\n\r\n0\r\n\r\n"), "\r\n0\r\n"}};
  for (const auto& [bytes, body] : cases) {
    const std::string twice = bytes + bytes;
    const auto expect = [&body = body](const Heard& heard) {
      EXPECT_EQ(heard.failed, 0);
      ASSERT_THAT(heard.requests, SizeIs(2));
      for (const HttpRequest& request : heard.requests) {
        EXPECT_EQ(request.body, body);
        EXPECT_EQ(request.headers.at("host"), "localhost");
      }
    };
    for (std::size_t size = 1; size <= twice.size(); ++size) {
      SCOPED_TRACE(bytes + " in pieces of " + std::to_string(size));
      expect(hear_in_pieces(twice, size));
      expect(hear_in_two(twice, size));
    }
  }
}

TEST(HttpTest, WhatIsNoRequestIsRefusedInPiecesToo) {
  for (const std::string& bytes :
       {in_chunks("x\r\n\r\n....."), in_chunks("0\r\nno field\r\n\r\n"),
        in_chunks("0 x\r\n\r\n....."), in_chunks("1\r\nhello\r\n\r\n"),
        in_chunks("1\r\nh0\r\n\r\n"), in_chunks("ffffffffffffffffff\r\n....."),
        std::string("GET / HTTP/9\r\n\r\n"), std::string("\r\n\r\n\r\n")}) {
    for (std::size_t size = 1; size <= bytes.size(); ++size) {
      SCOPED_TRACE(bytes + " in pieces of " + std::to_string(size));
      EXPECT_EQ(hear_in_pieces(bytes, size).failed, 400);
      EXPECT_EQ(hear_in_two(bytes, size).failed, 400);
    }
  }
}

}  // namespace
}  // namespace einhorn::agent
