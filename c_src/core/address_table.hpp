// Purpose: the registry rows by which the address policy decides. IPv4 blocks
// are written as v4-mapped IPv6 blocks (::ffff:0:0/96).
// Ownership: static storage.
// Thread: any.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace webhooks {

struct AddressRow {
  std::uint64_t high;
  std::uint64_t low;
  std::uint8_t prefix_bits;
  std::string_view reason;  // empty: globally reachable
};

// The longest prefixes first, so that the first row that matches decides.
std::span<const AddressRow> address_rows() noexcept;

}  // namespace webhooks
