// HTTP as the agent speaks it: requests are read by Boost.Beast's parser, in http.cpp alone;
// answers are written by hand.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace einhorn::agent {

struct HttpRequest {
  std::string method;
  std::string path;                            // decoded, without the query
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool keep_alive = true;

  [[nodiscard]] std::string header(const std::string& name) const;
  [[nodiscard]] std::string parameter(const std::string& name,
                                      const std::string& otherwise = "") const;
};

struct HttpResponse {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
  std::map<std::string, std::string> headers = {};
};

// One request after the other out of the bytes of one connection. Headers may be 8 kB long
// together, a body 64 kB.
class HttpParser {
 public:
  HttpParser();
  ~HttpParser();
  HttpParser(HttpParser&&) noexcept;
  HttpParser& operator=(HttpParser&&) noexcept;

  // Takes what it needs from the front of `bytes`. A request when it is complete; the rest of the
  // bytes is the next one's. `failed`: it is no HTTP, or too large; the status to answer with.
  std::optional<HttpRequest> feed(std::string& bytes, int& failed);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// With Content-Length, and headers that keep a page in its place.
[[nodiscard]] std::string encode_response(const HttpResponse& response, bool keep_alive,
                                          bool head_only);
[[nodiscard]] std::string percent_decode(std::string_view text);

}  // namespace einhorn::agent
