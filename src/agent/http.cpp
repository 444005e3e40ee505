#include "agent/http.h"

// Only the parser: what is heavy of Beast stays in this file.
#include <algorithm>
#include <stdexcept>

// What Beast takes for impossible is no reason to end: whoever sent it is refused.
#define BOOST_ENABLE_ASSERT_HANDLER
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace boost {

void assertion_failed(const char* expression, const char* /*function*/, const char* /*file*/,
                      long /*line*/) {
  throw std::logic_error(expression);
}

void assertion_failed_msg(const char* expression, const char* /*message*/, const char* function,
                          const char* file, long line) {
  assertion_failed(expression, function, file, line);
}

}  // namespace boost

namespace einhorn::agent {
namespace {

namespace beast = boost::beast;

constexpr std::uint32_t kMostHeaderBytes = 8 * 1024;
constexpr std::uint64_t kMostBodyBytes = 64 * 1024;

int hex(char letter) {
  if (letter >= '0' && letter <= '9') {
    return letter - '0';
  }
  const char lower = static_cast<char>(letter | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::string_view reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Payload Too Large";
    case 415:
      return "Unsupported Media Type";
    case 421:
      return "Misdirected Request";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

constexpr std::string_view kLastChunk = "0\r\n\r\n";

std::map<std::string, std::string> parse_query(std::string_view text) {
  std::map<std::string, std::string> query;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view part = text.substr(0, end);
    const std::size_t equals = std::min(part.find('='), part.size());
    if (!part.empty()) {
      query[percent_decode(part.substr(0, equals))] =
          percent_decode(part.substr(std::min(equals + 1, part.size())));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return query;
}

}  // namespace

struct HttpParser::State {
  std::optional<beast::http::request_parser<beast::http::string_body>> parser;
  void renew() {
    parser.emplace();
    parser->header_limit(kMostHeaderBytes);
    parser->body_limit(kMostBodyBytes);
    parser->eager(true);
  }
};

HttpParser::HttpParser() : state_(std::make_unique<State>()) { state_->renew(); }
HttpParser::~HttpParser() = default;
HttpParser::HttpParser(HttpParser&&) noexcept = default;
HttpParser& HttpParser::operator=(HttpParser&&) noexcept = default;

std::optional<HttpRequest> HttpParser::feed(std::string& bytes, int& failed) {
  failed = 0;
  auto& parser = *state_->parser;
  while (!bytes.empty() && !parser.is_done()) {
    // Of a body in chunks at least this much is still to come. Beast 1.74 aborts when it is given less
    // of an empty one's end after it has seen how that begins.
    if (parser.is_header_done() && parser.chunked() && bytes.size() < kLastChunk.size()) {
      return std::nullopt;
    }
    beast::error_code error;
    try {
      bytes.erase(0, parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error));
    } catch (const std::logic_error&) {  // assertion_failed
      failed = 400;
      return std::nullopt;
    }
    if (error == beast::http::error::need_more) {
      // Beast takes a header only as a whole: what is there of it stays in `bytes`.
      if (bytes.size() > kMostHeaderBytes) {
        failed = 431;
      }
      return std::nullopt;
    }
    if (error) {
      failed = error == beast::http::error::body_limit     ? 413
               : error == beast::http::error::header_limit ? 431
                                                           : 400;
      return std::nullopt;
    }
  }
  if (!parser.is_done()) {
    return std::nullopt;
  }
  auto message = parser.release();
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const std::size_t mark = std::min(target.find('?'), target.size());
  request.path = percent_decode(std::string_view(target).substr(0, mark));
  request.query = parse_query(std::string_view(target).substr(std::min(mark + 1, target.size())));
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char letter) {
      return static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter + 32 : letter);
    });
    request.headers[name] = std::string(field.value());
  }
  request.body = message.body();
  request.keep_alive = message.keep_alive();
  state_->renew();
  return request;
}

std::string HttpRequest::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::string HttpRequest::parameter(const std::string& name, const std::string& otherwise) const {
  const auto found = query.find(name);
  return found == query.end() ? otherwise : found->second;
}

std::string percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '%' && at + 2 < text.size() && hex(text[at + 1]) >= 0 &&
        hex(text[at + 2]) >= 0) {
      out += static_cast<char>(hex(text[at + 1]) * 16 + hex(text[at + 2]));
      at += 2;
    } else {
      out += text[at] == '+' ? ' ' : text[at];
    }
  }
  return out;
}

std::string encode_response(const HttpResponse& response, bool keep_alive, bool head_only) {
  std::string out = "HTTP/1.1 " + std::to_string(response.status) + " ";
  out += reason_of(response.status);
  out += "\r\nContent-Type: " + response.type +
         "\r\nContent-Length: " + std::to_string(response.body.size()) +
         "\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY"
         "\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n";
  for (const auto& [name, value] : response.headers) {
    out += name;
    out += ": ";
    out += value;
    out += "\r\n";
  }
  out += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  if (!head_only) {
    out += response.body;
  }
  return out;
}

}  // namespace einhorn::agent
