// Commands that come over HTTP: who may give them, and which there are.
//
// A request must be a POST of JSON, from our own page or from no page at all (its Origin is the
// Host it was sent to), to a Host that we are known by (so that no foreign name can be pointed at
// us), and with the token. Anything else is refused before its body is looked at.
#pragma once

#include <string>
#include <vector>

#include "agent/fleet.h"
#include "agent/http.h"

namespace einhorn::agent {

// The first line of the file. Errors: not there, readable by others, shorter than 16 characters.
[[nodiscard]] Result<std::string> read_token(const std::string& path);

// The first line of a file that is this user's or root's, and that nobody else may write.
[[nodiscard]] Result<std::string> read_own_line(const std::string& path);

class Control {
 public:
  // `token` "": nothing is allowed.
  Control(std::string token, std::vector<std::string> hosts)
      : token_(std::move(token)), hosts_(std::move(hosts)) {}

  [[nodiscard]] bool allowed() const { return !token_.empty(); }
  // Whether Host names us: an address, localhost, or a name that --host gave.
  [[nodiscard]] bool knows_host(const HttpRequest& request) const;
  [[nodiscard]] HttpResponse handle(const HttpRequest& request, const Fleet& fleet) const;

 private:
  [[nodiscard]] std::optional<HttpResponse> refuse(const HttpRequest& request) const;

  std::string token_;
  std::vector<std::string> hosts_;
};

}  // namespace einhorn::agent
