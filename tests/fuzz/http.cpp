// What somebody sends to the agent's HTTP port, in pieces of any size: requests out of bytes, who may
// control, and answers.
#include "agent/http.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "agent/control.h"
#include "agent/health.h"
#include "agent/metrics.h"
#include "fuzz.h"

namespace einhorn::fuzz {
namespace {

using agent::HttpRequest;
using agent::HttpResponse;

constexpr std::string_view kToken = "a-token-of-16-chars";
constexpr std::size_t kMostBody = 64 * 1024;
constexpr std::size_t kMostHeaders = 8 * 1024;

struct Heard {
  std::vector<HttpRequest> requests;
  int failed = 0;
};

// As the server does it: until something is wrong, or the bytes are used up.
Heard hear(std::string_view bytes, std::size_t piece) {
  agent::HttpParser parser;
  Heard heard;
  std::string input;
  while (!bytes.empty() && heard.failed == 0) {
    const std::string_view next = bytes.substr(0, piece);
    bytes.remove_prefix(next.size());
    input += next;
    while (std::optional<HttpRequest> request = parser.feed(input, heard.failed)) {
      heard.requests.push_back(std::move(*request));
    }
  }
  holds(heard.failed == 0 || (heard.failed >= 400 && heard.failed < 500),
        "what is no HTTP is the client's mistake");
  return heard;
}

bool same(const HttpRequest& one, const HttpRequest& other) {
  return one.method == other.method && one.path == other.path && one.query == other.query &&
         one.headers == other.headers && one.body == other.body &&
         one.keep_alive == other.keep_alive;
}

void holds_request(const HttpRequest& request) {
  holds(!request.method.empty(), "a request has a method");
  holds(request.body.size() <= kMostBody, "a body is not too long");
  std::size_t bytes = 0;
  for (const auto& [name, value] : request.headers) {
    bytes += name.size() + value.size();
    holds(!name.empty() && std::none_of(name.begin(), name.end(),
                                        [](char each) {
                                          return (each >= 'A' && each <= 'Z') || each == '\n' ||
                                                 each == '\r' || each == ':';
                                        }),
          "a header's name is in lower case, and in one line", name);
    holds(value.find_first_of("\r\n") == std::string::npos, "a header is one line", value);
  }
  holds(bytes <= kMostHeaders, "headers are not too long");
}

// One answer: its length is what it says.
void holds_answer(const HttpResponse& response, bool keep_alive) {
  const std::string whole = agent::encode_response(response, keep_alive, false);
  const std::string head = agent::encode_response(response, keep_alive, true);
  holds(whole == head + response.body, "a head is an answer without its body");
  holds(head.find("\r\n\r\n") == head.size() - 4, "the head ends where its empty line is");
  holds(head.find("Content-Length: " + std::to_string(response.body.size()) + "\r\n") !=
            std::string::npos,
        "an answer says how long it is");
}

}  // namespace

void run(std::string_view input) {
  Choices choices(input);
  const std::size_t piece = std::size_t{choices.byte()} + 1;
  const std::string bytes(choices.rest());
  const Heard whole = hear(bytes, std::max<std::size_t>(bytes.size(), 1));
  const Heard pieces = hear(bytes, piece);
  holds(whole.requests.size() == pieces.requests.size(),
        "how bytes come makes no other requests of them");
  for (std::size_t i = 0; i < whole.requests.size(); ++i) {
    holds(same(whole.requests[i], pieces.requests[i]), "nor other words in them");
  }

  Result<std::unique_ptr<client::Loop>> loop = client::Loop::create();
  if (!loop) {
    return;
  }
  const agent::Fleet fleet(**loop, {}, Duration{0}, {});
  const agent::Control closed("", {});
  const agent::Control open{std::string(kToken), {"pools.example.com"}};
  for (const HttpRequest& request : whole.requests) {
    holds_request(request);
    static_cast<void>(open.knows_host(request));
    const HttpResponse refused = closed.handle(request, fleet);
    holds(refused.status == 403, "without --allow-control nobody controls");
    holds_answer(refused, request.keep_alive);
    const HttpResponse answered = open.handle(request, fleet);
    const bool has_token = request.header("authorization") == "Bearer " + std::string(kToken);
    const bool let_in = answered.status == 400 || answered.status == 404;
    holds(!let_in || (has_token && request.method == "POST"), "nobody is let in without the token");
    holds(let_in || answered.status == 401 || answered.status == 403 || answered.status == 405 ||
              answered.status == 415,
          "a pool that is not there is not controlled");
    holds_answer(answered, request.keep_alive);
    const agent::Health health =
        agent::health_of(fleet, request.parameter("pool"), {}, false, (*loop)->now());
    holds_answer({health.well ? 200 : 503, "text/plain", health.text}, request.keep_alive);
  }
}

}  // namespace einhorn::fuzz
