// In place of store_postgresql.cpp where its client is not linked (EINHORN_POSTGRESQL=OFF).
#include "agent/store.h"

namespace einhorn::agent {
namespace {

class NoPostgresqlStore final : public Store {
 public:
  Status open() override { return refusal(); }
  Status write(const std::vector<Row>& /*rows*/) override { return refusal(); }
  Status expire(double /*before*/, std::uint64_t /*most_bytes*/) override { return refusal(); }
  Result<Rows> query(const std::string& /*sql*/, const Cells& /*parameters*/,
                     std::size_t /*most_rows*/) override {
    return refusal();
  }

 private:
  static Error refusal() {
    return make_error("--history",
                      "this einhorn-agent was built without PostgreSQL: say a file, or install the "
                      "package einhorn-agent");
  }
};

}  // namespace

std::unique_ptr<Store> make_postgresql_store(const std::string& /*url*/, bool /*read_only*/) {
  return std::make_unique<NoPostgresqlStore>();
}

}  // namespace einhorn::agent
