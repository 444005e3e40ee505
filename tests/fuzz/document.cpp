// YAML and JSON under limits of the input's choice, so that every limit is met by small inputs.
#include <string_view>

#include "documents.h"
#include "wire/json.h"
#include "wire/yaml.h"

namespace einhorn::fuzz {

void run(std::string_view input) {
  Choices choices(input);
  const std::uint8_t how = choices.byte();
  wire::YamlLimits limits;
  if ((how & 1U) != 0) {
    limits.nesting = choices.below(8);
    limits.nodes = std::size_t{1} + choices.byte();
    limits.scalar_bytes = choices.byte();
  }
  limits.aliases = (how & 2U) != 0;
  const bool json = (how & 4U) != 0;
  const std::string_view text = choices.rest();
  const Result<wire::Value> read =
      json ? wire::parse_json(text, limits) : wire::parse_yaml(text, limits);
  if (!read) {
    holds_for_people(read.error().message());
    return;
  }
  holds_within(*read, limits);
  holds_round_trips(*read);
}

}  // namespace einhorn::fuzz
