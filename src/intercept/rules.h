// Which of our sockets a program's bind() is to get. Pure: values in, a decision out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "intercept/address.h"
#include "os/intercept.h"

namespace einhorn::intercept {

// A socket of the pool, as its -b made it.
struct Shared {
  std::uint32_t index = 0;
  bool datagram = false;
  bool v6_only = false;
  SocketAddress address;  // kInet, kInet6, kPath or kAbstract
  std::string name;       // name=NAME of the -b; "" none
};

// What a program wants to bind.
struct Wanted {
  bool datagram = false;
  bool inet6 = false;    // its socket is an AF_INET6 one
  bool v6_only = false;  // with IPV6_V6ONLY
  SocketAddress address;
};

// One kernel socket for each form in which programs ask for a shared address: an AF_INET6 socket in
// a program that asked for AF_INET would give it addresses that it can't read.
struct Form {
  bool inet6 = false;
  bool v6_only = false;
  SocketAddress address;  // what this form is bound to
  friend bool operator==(const Form&, const Form&) = default;
};

struct Decision {
  enum class Kind {
    kUnmanaged,   // none of ours: the kernel is to do what was asked
    kShared,      // the program gets `index` in the form `form`
    kImpossible,  // ours, but it can't be had in the way that the program asked
  };
  Kind kind = Kind::kUnmanaged;
  std::uint32_t index = 0;
  Form form;
  std::string reason;  // kImpossible
};

// The form that a -b opened itself.
[[nodiscard]] Form own_form(const Shared& shared);

// The first rule that names the program's address counts; else the port. Of several sockets with
// that port: the one with the very address, then one of all addresses, then, if the program asked
// for all addresses, one of its family, then any. Paths must have been made absolute.
[[nodiscard]] Decision decide(const Wanted& wanted, const std::vector<Shared>& shared,
                              const std::vector<os::InterceptRule>& rules);

}  // namespace einhorn::intercept
