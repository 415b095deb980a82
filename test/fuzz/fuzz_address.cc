// Purpose: no text crashes the address and CIDR parsers. A parsed address
// prints in its canonical form, and all forms that embed it are judged alike.
// Ownership: nothing outlives a run.
// Thread: one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "allowing.hpp"
#include "require.hpp"
#include "webhooks/address_policy.hpp"

using namespace webhooks_fuzz;

using webhooks::AddressPolicy;
using webhooks::AllowEntry;
using webhooks::Cidr;
using webhooks::IpAddress;

namespace {

// `v4` after a prefix of twelve bytes.
IpAddress carried(const IpAddress& v4, std::string_view prefix) {
  IpAddress address = *IpAddress::parse(prefix);
  std::copy_n(v4.bytes.begin(), 4, address.bytes.begin() + 12);
  return address;
}

constexpr std::uint16_t kPort = 443;

void check_address(const IpAddress& address, const AddressPolicy& policy) {
  const auto judge = [&](const IpAddress& other) {
    return policy.judge(other, kPort, {});
  };
  require(IpAddress::parse(address.to_string()) == address);
  const auto verdict = judge(address);
  require(!verdict || !verdict->empty());
  if (address.family == IpAddress::Family::kV4) {
    require(judge(carried(address, "::ffff:0:0")) == verdict);
    require(judge(carried(address, "64:ff9b::")) == verdict);
    require(judge(carried(address, "::")).has_value());
    return;
  }
  // Outside 2000::/3 only addresses that embed IPv4 ones are allowed.
  const bool global_unicast = (address.bytes[0] & 0xe0) == 0x20;
  const IpAddress mapped = *IpAddress::parse("::ffff:0:0");
  const bool carries = std::equal(
      mapped.bytes.begin(), mapped.bytes.begin() + 12, address.bytes.begin());
  const bool nat64 = address.bytes[0] == 0 && address.bytes[1] == 0x64;
  require(global_unicast || carries || nat64 || verdict.has_value());
}

// An entry opens what lies inside one refused range, and nothing else.
void check_entry(const AllowEntry& entry) {
  const AddressPolicy policy({entry});
  if (const auto* block = std::get_if<Cidr>(&entry.what)) {
    require(block->contains(block->network) && block->prefix_bits > 0);
    static const AddressPolicy closed;
    const auto before = closed.judge(block->network, kPort, {}).value_or("");
    const auto after = policy.judge(block->network, kPort, {}).value_or("");
    require(after.empty() || after == before);
    return;
  }
  const std::string& name = std::get<std::string>(entry.what);
  require(policy.allows_name(name, kPort) == entry.covers(kPort));
  for (const char* special : {"127.0.0.1", "::1", "169.254.169.254",
                              "fd00:ec2::254", "fe80::1", "0.0.0.0"}) {
    require(policy.judge(*IpAddress::parse(special), kPort, name).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  static const AddressPolicy closed;
  static const AddressPolicy open =
      webhooks_test::allowing("127.0.0.0/8:* 10.0.0.0/8");
  // No name is as long as this.
  if (size > 300) return -1;
  const std::string_view text = text_of(data, size);
  if (const auto address = IpAddress::parse(text)) {
    check_address(*address, closed);
    check_address(*address, open);
  }
  if (const auto entry = AllowEntry::parse(text); entry.ok()) {
    check_entry(entry.value());
  }
  if (size == 4 || size == 16) {
    IpAddress address;
    if (size == 16) address.family = IpAddress::Family::kV6;
    std::copy_n(data, size, address.bytes.begin());
    check_address(address, closed);
    check_address(address, open);
    // Without the entry, the address must have been refused.
    require(!open.judge(address, kPort, {}) ||
            closed.judge(address, kPort, {}));
  }
  return 0;
}
