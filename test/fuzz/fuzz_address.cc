// Purpose: no text crashes the address and CIDR parsers, what they take they
// print alike, and an address is judged alike in each form that carries it.
// Ownership: nothing outlives a run.
// Thread: one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "webhooks/address_policy.hpp"

using webhooks::AddressPolicy;
using webhooks::Cidr;
using webhooks::IpAddress;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// `v4` behind twelve bytes of prefix.
IpAddress carried(const IpAddress& v4, std::string_view prefix) {
  IpAddress address = *IpAddress::parse(prefix);
  std::copy_n(v4.bytes.begin(), 4, address.bytes.begin() + 12);
  return address;
}

void check_address(const IpAddress& address, const AddressPolicy& policy) {
  require(IpAddress::parse(address.to_string()) == address);
  const auto verdict = policy.judge(address);
  require(!verdict || !verdict->empty());
  if (address.family == IpAddress::Family::kV4) {
    require(policy.judge(carried(address, "::ffff:0:0")) == verdict);
    require(policy.judge(carried(address, "64:ff9b::")) == verdict);
    require(AddressPolicy().judge(carried(address, "::")).has_value());
    return;
  }
  // Outside 2000::/3 there is nothing but what carries IPv4.
  const bool global_unicast = (address.bytes[0] & 0xe0) == 0x20;
  const IpAddress mapped = *IpAddress::parse("::ffff:0:0");
  const bool carries = std::equal(
      mapped.bytes.begin(), mapped.bytes.begin() + 12, address.bytes.begin());
  const bool nat64 = address.bytes[0] == 0 && address.bytes[1] == 0x64;
  if (!global_unicast && !carries && !nat64) {
    require(AddressPolicy().judge(address).has_value());
  }
}

void check_block(const Cidr& block) {
  require(block.contains(block.network));
  require(!AddressPolicy(false, {block}).judge(block.network));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const AddressPolicy closed;
  const AddressPolicy open(true, {});
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto address = IpAddress::parse(text)) {
    check_address(*address, closed);
    check_address(*address, open);
  }
  if (const auto block = Cidr::parse(text); block.ok()) {
    check_block(block.value());
  }
  if (size == 4 || size == 16) {
    IpAddress address;
    if (size == 16) address.family = IpAddress::Family::kV6;
    std::copy_n(data, size, address.bytes.begin());
    check_address(address, closed);
    check_address(address, open);
    // What private networks open must have been closed.
    require(!open.judge(address) || closed.judge(address));
  }
  return 0;
}
