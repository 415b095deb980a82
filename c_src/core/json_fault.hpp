// Purpose: finds the first fault of a document that the reader refused.
// simdjson does not say where a fault is, and how it splits invalid text into
// tokens depends on the CPU. A scalar scan gives the same answer everywhere.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "webhooks/json_reader.hpp"

namespace webhooks {

enum class NumberKind : std::uint8_t { kInvalid, kInteger, kReal };

// Judges a whole token by the grammar of RFC 8259, section 6.
NumberKind number_kind(std::string_view token) noexcept;

// Returns nullopt if there is no fault within the document itself (size and
// byte order mark are the reader's).
std::optional<JsonFault> find_json_fault(std::string_view json) noexcept;

}  // namespace webhooks
