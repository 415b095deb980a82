// Purpose: the grammar of RFC 8259 without simdjson: literals and numbers for
// the reader, and the first fault of a document that the reader refused.
// simdjson does not say where a fault is, and how it splits invalid text into
// tokens depends on the CPU. A scalar scan gives the same answer everywhere.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "webhooks/json_reader.hpp"

namespace webhooks {

// nullptr is null. A fault has offset 0.
using JsonScalar =
    std::variant<JsonFault, std::nullptr_t, bool, std::int64_t, double>;

// Reads a whole token: a literal or a number (RFC 8259, sections 3 and 6).
JsonScalar read_json_scalar(std::string_view token) noexcept;

// Returns nullopt if there is no fault within the document itself (size and
// byte order mark are the reader's).
std::optional<JsonFault> find_json_fault(std::string_view json) noexcept;

}  // namespace webhooks
