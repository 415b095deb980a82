// Purpose: makes policies from entries as an operator writes them.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "webhooks/address_policy.hpp"
#include "words.hpp"

namespace webhooks_test {

// `entries` are separated by spaces.
inline webhooks::AddressPolicy allowing(std::string_view entries) {
  std::vector<webhooks::AllowEntry> allow;
  for (const std::string_view text : words(entries)) {
    auto entry = webhooks::AllowEntry::parse(text);
    if (!entry.ok()) throw std::invalid_argument(std::string(text));
    allow.push_back(std::move(entry).value());
  }
  return webhooks::AddressPolicy(std::move(allow));
}

// The addresses of this machine that tests connect to.
inline webhooks::AddressPolicy allowing_loopback() {
  return allowing("127.0.0.0/8:* [::1]:* localhost:*");
}

}  // namespace webhooks_test
