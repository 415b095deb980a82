// Purpose: helpers for the tests of check_url.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "allowing.hpp"
#include "catch.hpp"
#include "webhooks/url.hpp"
#include "words.hpp"

namespace webhooks_test {

inline webhooks::UrlPolicy any_scheme() {
  webhooks::UrlPolicy policy;
  policy.https_only = false;
  return policy;
}

inline webhooks::UrlPolicy with_private() {
  webhooks::UrlPolicy policy = any_scheme();
  policy.addresses = allowing(
      "127.0.0.0/8:* [::1]:* 10.0.0.0/8:* localhost:* n8n:5678 "
      "db.internal:5432 "
      "db.example:5432");
  return policy;
}

// The normalized text, or the reason in parentheses.
inline std::string outcome(std::string_view text,
                           const webhooks::UrlPolicy& policy = any_scheme()) {
  const auto url = webhooks::check_url(text, policy);
  if (!url.ok()) return "(" + std::string(url.error().reason) + ")";
  return url.value().text;
}

struct Expected {
  std::string text;
  std::string outcome;
};

// Each text has its outcome, and a normalized text is its own.
inline void expect_all(const std::vector<Expected>& cases,
                       const webhooks::UrlPolicy& policy = any_scheme()) {
  for (const auto& [text, expected] : cases) {
    INFO(text);
    CHECK(outcome(text, policy) == expected);
    if (expected.front() != '(') CHECK(outcome(expected, policy) == expected);
  }
}

// Each of the words is refused for this reason.
inline void expect_refused(std::string_view reason, std::string_view texts,
                           const webhooks::UrlPolicy& policy = any_scheme()) {
  for (const std::string_view text : words(texts)) {
    INFO(text);
    CHECK(outcome(text, policy) == "(" + std::string(reason) + ")");
  }
}

inline std::string repeated(std::string_view part, std::size_t times) {
  std::string text;
  while (times-- > 0) text += part;
  return text;
}

}  // namespace webhooks_test
