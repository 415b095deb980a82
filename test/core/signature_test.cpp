#include "webhooks/signature.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"

using webhooks::SigningKey;
using std::string_literals::operator""s;

namespace {

constexpr std::int64_t kNow = 1700000000;
constexpr std::int64_t kTolerance = 300;
constexpr std::string_view kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
constexpr std::string_view kOtherSecret =
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

// The bytes f(0), f(1), ... as the vectors below were made from.
template <class F>
std::string bytes(int count, F&& f) {
  std::string text;
  for (int i = 0; i < count; ++i) text.push_back(static_cast<char>(f(i)));
  return text;
}

std::string base64(std::string_view text) {
  std::string encoded((text.size() + 2) / 3 * 4 + 1, '\0');
  encoded.resize(static_cast<std::size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded.data()),
                      reinterpret_cast<const unsigned char*>(text.data()),
                      static_cast<int>(text.size()))));
  return encoded;
}

using Keys = std::vector<std::string_view>;

std::string signed_by(const Keys& keys, std::string_view id, std::int64_t at,
                      std::string_view body) {
  const auto header = webhooks::sign(keys, id, at, body);
  if (!header.ok()) return "(" + std::string(header.error().reason) + ")";
  return header.value();
}

std::string verified(const Keys& keys, std::string_view id, std::int64_t at,
                     std::string_view header, std::string_view body,
                     std::int64_t now, std::int64_t tolerance_s = kTolerance) {
  const auto status =
      webhooks::verify(keys, id, at, header, body, now, tolerance_s);
  return status.ok() ? "ok" : std::string(status.error().reason);
}

std::string parse_outcome(std::string_view encoded) {
  const auto key = SigningKey::parse(encoded);
  return key.ok() ? "ok" : std::string(key.error().reason);
}

struct Vector {
  std::string key;
  std::string id;
  std::int64_t unix_seconds;
  std::string body;
  std::string signature;
};

// The first two are the reference libraries' own. The others were made with
// Node's crypto and checked with the standardwebhooks package and OTP's crypto.
std::vector<Vector> vectors() {
  return {
      {std::string(kSecret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
       R"({"test": 2432232314})",
       "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
      {std::string(kOtherSecret), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553,
       R"({"email":"test@example.com","username":"test_user"})",
       "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="},
      {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "msg_a", 1700000000,
       R"({"a":1})", "v1,UJzxsMGCiA8vTSPKloy93XfinduFLTx4r/EbEIz04aM="},
      {"whsec_" + base64(bytes(64, [](int i) { return 255 - i; })), "msg_b",
       1700000000, "", "v1,MuAIVo00LI5MqBQ8MNAjl/UkkmQiWQYL0mX7I7sPD90="},
      {"whsec_" + base64(bytes(32, [](int i) { return i * 7; })),
       std::string(255, 'm'), 0, bytes(256, [](int i) { return i; }),
       "v1,LRDnbX2lQQbdG8QBmtCEZP9tJ7YtdFYd3/AzR6oZuOE="},
      {"whsec_" + base64(bytes(33, [](int i) { return i * 3 + 1; })), "~!",
       std::numeric_limits<std::int64_t>::max(), "\0\0"s,
       "v1,4+RZpiafk0ZMbZy8h/wGFfD7WXBiFguvPljuIZyb4nE="},
      {"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "msg_utf8",
       1700000001,
       "{\"s\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x80\xa8\"}",
       "v1,SR9H0X03jLZ8OrBEzUqQ4Gz8PjeTx9y2TkWvJTkWRes="},
  };
}

}  // namespace

TEST_CASE("signature: known vectors sign and verify") {
  CHECK(webhooks::prepare_signing());
  for (const Vector& v : vectors()) {
    INFO(v.id);
    CHECK(signed_by({v.key}, v.id, v.unix_seconds, v.body) == v.signature);
    CHECK(verified({v.key}, v.id, v.unix_seconds, v.signature, v.body,
                   v.unix_seconds) == "ok");
  }
}

TEST_CASE("signature: any change makes it invalid") {
  for (const Vector& v : vectors()) {
    INFO(v.id);
    const auto with = [&](std::string_view id, std::int64_t at,
                          std::string_view body) {
      return verified({v.key}, id, at, v.signature, body, at);
    };
    CHECK(with(v.id.substr(1) + "x", v.unix_seconds, v.body) == "no_match");
    CHECK(with(v.id, v.unix_seconds ^ 1, v.body) == "no_match");
    CHECK(with(v.id, v.unix_seconds, v.body + " ") == "no_match");
    CHECK(with(v.id, v.unix_seconds, v.body + "\0"s) == "no_match");
    if (!v.body.empty()) {
      CHECK(with(v.id, v.unix_seconds, std::string_view(v.body).substr(1)) ==
            "no_match");
    }
    CHECK(verified({kSecret, kOtherSecret}, "other", v.unix_seconds,
                   v.signature, v.body, v.unix_seconds) == "no_match");
  }
}

TEST_CASE("signature: every changed character is detected") {
  const std::string header = signed_by({kSecret}, "msg_1", kNow, "body");
  REQUIRE(verified({kSecret}, "msg_1", kNow, header, "body", kNow) == "ok");
  int accepted = 0;
  for (std::size_t at = 0; at < header.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string forged = header;
      forged[at] = static_cast<char>(forged[at] ^ (1 << bit));
      accepted +=
          verified({kSecret}, "msg_1", kNow, forged, "body", kNow) == "ok";
    }
  }
  CHECK(accepted == 0);
}

TEST_CASE("signature: bytes cannot move between the signed parts") {
  const auto of = [](std::string_view id, std::int64_t at,
                     std::string_view body) {
    return signed_by({kSecret}, id, at, body);
  };
  CHECK(of("a", 1, "2.b") != of("a", 12, "b"));
  CHECK(of("a", 1, ".b") != of("a", 1, "b"));
  CHECK(of("a", 1, "b") != of("a1", 1, "b"));
  // A dot in the id would make two messages one.
  CHECK(of("a.1", 2, "b") == "(invalid_id)");
  CHECK(verified({kSecret}, "a.1", 2, of("a", 1, "2.b"), "b", 2) ==
        "invalid_id");
}

TEST_CASE("signature: ids and timestamps") {
  constexpr std::int64_t kSmallest = std::numeric_limits<std::int64_t>::min();
  const Keys keys = {kSecret};
  CHECK(signed_by(keys, std::string(255, 'i'), kNow, "").starts_with("v1,"));
  for (const std::string& id :
       {""s, std::string(256, 'i'), "a.b"s, "."s, "a b"s, "a\n"s, "a\r\nb"s,
        "\0"s, "a\x7f"s, "\u00e4"s, "\t"s}) {
    INFO(id);
    CHECK(signed_by(keys, id, kNow, "") == "(invalid_id)");
    CHECK(verified(keys, id, kNow, "v1,x", "", kNow) == "invalid_id");
  }
  for (const std::int64_t at : {std::int64_t{-1}, kSmallest}) {
    CHECK(signed_by(keys, "a", at, "") == "(invalid_timestamp)");
    CHECK(verified(keys, "a", at, "v1,x", "", 0) == "invalid_timestamp");
  }
}

TEST_CASE("signature: keys are standard padded base64 of the right length") {
  for (const std::size_t size :
       {0U, 1U, 18U, 23U, 24U, 25U, 26U, 32U, 63U, 64U, 65U, 66U, 100U}) {
    INFO(size);
    CHECK(parse_outcome("whsec_" + base64(std::string(size, '\xfb'))) ==
          (size >= 24 && size <= 64 ? "ok" : "invalid_key"));
  }
  const std::string good = base64(std::string(32, '\xfb'));
  std::string url_safe = good;
  for (char& c : url_safe) c = c == '+' ? '-' : c == '/' ? '_' : c;
  REQUIRE(url_safe != good);
  const auto with = [&](std::string_view middle) {
    return good.substr(0, 10) + std::string(middle) + good.substr(11);
  };
  for (const std::string& bad :
       {good, "WHSEC_" + good, "whsec-" + good, " whsec_" + good,
        "whpk_" + good, "whsk_" + good, "whxx_" + good}) {
    INFO(bad);
    CHECK(parse_outcome(bad) == "invalid_key");
  }
  for (const std::string& bad :
       {""s, " " + good, good + " ", good + "\n", url_safe, good + "=",
        good + "====", good.substr(0, good.size() - 1),
        good.substr(0, good.size() - 2), "=" + good.substr(1), with("="),
        with("\0"s), with("\xff"),
        // The last character carries bits that belong to no byte.
        good.substr(0, good.size() - 2) + "t="}) {
    INFO(bad);
    CHECK(parse_outcome("whsec_" + bad) == "invalid_key");
    CHECK(verified({"whsec_" + bad}, "a", kNow, "v2,x", "", kNow) ==
          "invalid_key");
  }
}

TEST_CASE("signature: rotation signs with every key, newest first") {
  constexpr std::string_view kStranger =
      "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
  const std::string header =
      signed_by({kSecret, kOtherSecret}, "msg_1", kNow, "body");
  CHECK(header == signed_by({kSecret}, "msg_1", kNow, "body") + " " +
                      signed_by({kOtherSecret}, "msg_1", kNow, "body"));
  const auto with = [&](const Keys& keys) {
    return verified(keys, "msg_1", kNow, header, "body", kNow);
  };
  for (const std::string_view key : {kSecret, kOtherSecret}) {
    CHECK(with({key}) == "ok");
    CHECK(with({kStranger, key}) == "ok");
    CHECK(with({key, kStranger}) == "ok");
  }
  CHECK(with({kStranger}) == "no_match");
  // An invalid key is an error even beside one that matches.
  CHECK(with({kSecret, "whsec_x"}) == "invalid_key");
}

TEST_CASE("signature: takes 1 to 10 keys") {
  CHECK(signed_by({}, "a", kNow, "") == "(no_keys)");
  CHECK(verified({}, "a", kNow, "v2,x", "", kNow) == "no_keys");
  const std::vector<std::string_view> ten(10, kSecret);
  const std::string header = signed_by(ten, "a", kNow, "");
  CHECK(std::count(header.begin(), header.end(), ' ') == 9);
  CHECK(verified(ten, "a", kNow, header, "", kNow) == "ok");
  const std::vector<std::string_view> eleven(11, kSecret);
  CHECK(signed_by(eleven, "a", kNow, "") == "(too_many_keys)");
  CHECK(verified(eleven, "a", kNow, header, "", kNow) == "too_many_keys");
}

TEST_CASE("signature: header shapes") {
  const std::string good = signed_by({kSecret}, "a", kNow, "b");
  const std::string other = signed_by({kOtherSecret}, "a", kNow, "b");
  const std::string base64 = good.substr(3);
  const auto with = [](std::string_view header) {
    return verified({kSecret}, "a", kNow, header, "b", kNow);
  };
  for (const std::string& header :
       {good, other + " " + good, good + " " + other, "  " + good + "  ",
        "v2,future v1a," + base64 + " junk " + good, "v1, " + good,
        good + " junk"}) {
    INFO(header);
    CHECK(with(header) == "ok");
  }
  for (const std::string& header :
       {"v2,x junk"s, other, "v2," + base64, "v1a," + base64,
        "V1" + good.substr(2), "\0"s + good}) {
    INFO(header);
    CHECK(with(header) == "no_match");
  }
  // Two spellings of one signature would be two signatures.
  for (const std::string& header :
       {""s, " "s, "v1"s, "v1,"s, ","s, "v1,AAAA"s, base64, good + "=",
        good.substr(0, good.size() - 1), good + "," + other,
        good + "\t" + other, good + "\n", "v1=" + base64}) {
    INFO(header);
    CHECK(with(header) == "invalid_header");
  }
  std::string longest = good;
  while (longest.size() + good.size() < webhooks::kSignatureHeaderBytesMax) {
    longest = other + " " + longest;
  }
  CHECK(with(longest) == "ok");
  CHECK(with(longest + std::string(webhooks::kSignatureHeaderBytesMax, ' ')) ==
        "invalid_header");
}

TEST_CASE("signature: the tolerance is exact to the second") {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kSmallest = std::numeric_limits<std::int64_t>::min();
  struct Case {
    std::int64_t at;
    std::int64_t now;
    std::int64_t tolerance_s;
    std::string_view outcome;
  };
  for (const auto& [at, now, tolerance_s, outcome] :
       {Case{kNow, kNow, 300, "ok"},
        {kNow - 300, kNow, 300, "ok"},
        {kNow - 301, kNow, 300, "timestamp_too_old"},
        {kNow + 300, kNow, 300, "ok"},
        {kNow + 301, kNow, 300, "timestamp_too_new"},
        {kNow, kNow, 0, "ok"},
        {kNow - 1, kNow, 0, "timestamp_too_old"},
        {kNow + 1, kNow, 0, "timestamp_too_new"},
        {kNow + 1, kNow, -5, "timestamp_too_new"},
        {0, kLargest, kLargest, "ok"},
        {0, kLargest, kLargest - 1, "timestamp_too_old"},
        {kLargest, 0, kLargest, "ok"},
        {kLargest, kSmallest, kLargest, "timestamp_too_new"},
        {0, kSmallest, kLargest, "timestamp_too_new"},
        {kLargest, kLargest, 0, "ok"}}) {
    INFO(at << " " << now << " " << tolerance_s);
    CHECK(verified({kSecret}, "a", at, signed_by({kSecret}, "a", at, "b"), "b",
                   now, tolerance_s) == outcome);
  }
}

TEST_CASE("signature: a reused key signs like a new one") {
  auto reused = SigningKey::parse(kSecret);
  REQUIRE(reused.ok());
  for (int i = 0; i < 50; ++i) {
    const std::string id = "msg_" + std::to_string(i);
    const std::string body(static_cast<std::size_t>(i * i * 7), 'b');
    std::string header;
    REQUIRE(reused.value().append_signature(id, kNow + i, body, header).ok());
    CHECK(header == signed_by({kSecret}, id, kNow + i, body));
    // A refused message must not spoil the next one.
    CHECK_FALSE(
        reused.value().append_signature("a.b", kNow, body, header).ok());
  }
}

TEST_CASE("signature: large bodies") {
  const std::string body(1 << 20, '\xe2');
  const std::string header = signed_by({kSecret}, "a", kNow, body);
  CHECK(verified({kSecret}, "a", kNow, header, body, kNow) == "ok");
}

TEST_CASE("signature: generated secrets are new and usable") {
  const auto first = webhooks::generate_secret();
  const auto second = webhooks::generate_secret();
  REQUIRE(first.ok());
  REQUIRE(second.ok());
  CHECK(first.value() != second.value());
  CHECK(first.value().size() == 6 + 44);
  CHECK(parse_outcome(first.value()) == "ok");
}

TEST_CASE(
    "signature: threads with keys of their own do not disturb each other") {
  const std::string expected = signed_by({kSecret}, "a", kNow, "body");
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&count, &expected] {
      for (int i = 0; i < 200; ++i) {
        auto key = SigningKey::parse(kSecret);
        std::string header;
        if (!key.ok() ||
            !key.value().append_signature("a", kNow, "body", header).ok() ||
            header != expected) {
          ++count;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
