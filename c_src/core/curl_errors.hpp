// Purpose: judges a finished transfer: turns curl's code, the status and the
// findings of the callbacks into one error class and a sentence for people.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <curl/curl.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "webhooks/delivery.hpp"

namespace webhooks {

struct TransferFacts {
  CURLcode code = CURLE_OK;
  long status = 0;
  long os_error = 0;
  bool https = false;
  bool address_refused = false;  // the policy refused every address
  bool sent_before = false;      // curl was about to send it once more
  bool headers_too_large = false;
  bool protocol_violation = false;  // 101 or a like answer to a plain POST
  bool body_capped = false;  // we stopped reading, the answer is complete
  bool answered = false;     // final response headers are in
  bool connected = false;
  bool tls_done = false;
  bool first_byte = false;
  std::string_view curl_text;
};

struct Verdict {
  ErrorClass error = ErrorClass::kNone;
  std::string detail;
  bool truncated = false;  // the answer's body is incomplete
};

Verdict judge_transfer(const TransferFacts& facts);

// At most kDetailBytesMax bytes of printable ASCII.
std::string clean_detail(std::string_view text);

}  // namespace webhooks
