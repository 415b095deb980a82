#include <clocale>
#include <string>

#include "catch.hpp"
#include "url_outcome.hpp"
#include "webhooks/url.hpp"

using webhooks::UrlPolicy;
using webhooks_test::any_scheme;
using webhooks_test::expect_all;
using webhooks_test::repeated;
using webhooks_test::with_private;

TEST_CASE("url: international names become punycode in any locale") {
  // A BEAM often runs in C, where curl's own conversion fails.
  for (const char* locale : {"C", "C.UTF-8"}) {
    INFO(locale);
    REQUIRE(std::setlocale(LC_ALL, locale) != nullptr);
    expect_all({
        {"https://b\xc3\xbc"
         "cher.example/",
         "https://xn--bcher-kva.example/"},
        {"https://B\xc3\x9c"
         "CHER.example/",
         "https://xn--bcher-kva.example/"},
        {"https://bu\xcc\x88"
         "cher.example/",
         "https://xn--bcher-kva.example/"},
        {"https://b%C3%BCcher.example/", "https://xn--bcher-kva.example/"},
        {"https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"},
        {"https://XN--Bcher-KVA.example/", "https://xn--bcher-kva.example/"},
        {"https://fa\xc3\x9f.example/", "https://xn--fa-hia.example/"},
        {"https://\xe4\xbe\x8b\xe3\x81\x88\xe3\x80\x82\xe3\x83\x86\xe3\x82\xb9"
         "\xe3\x83\x88\xe3\x80\x82/",
         "https://xn--r8jz45g.xn--zckzah/"},
        // Soft hyphen and zero-width space say nothing.
        {"https://exam\xc2\xad"
         "ple.com/",
         "https://example.com/"},
        {"https://exam\xe2\x80\x8bple.com/", "https://example.com/"},
        {"https://\xe2\x93\x94xample.com/", "https://example.com/"},
        {"https://example\xef\xbc\x8e"
         "com/",
         "https://example.com/"},
    });
  }
  std::setlocale(LC_ALL, "C");
}

TEST_CASE("url: the Unicode form of an international name") {
  const auto unicode = [](const std::string& text) {
    const auto url = webhooks::check_url(text, any_scheme());
    REQUIRE(url.ok());
    return url.value().host_unicode;
  };
  const std::string book =
      "b\xc3\xbc"
      "cher.example";
  CHECK(unicode("https://" + book + "/") == book);
  CHECK(unicode("https://xn--bcher-kva.example/") == book);
  CHECK(unicode("https://a.xn--bcher-kva.xn--p1ai/") ==
        "a.b\xc3\xbc"
        "cher.\xd1\x80\xd1\x84");
  for (const std::string other :
       {"example.com", "axn--bcher-kva.com", "8.8.8.8", "[2606:4700::1111]"}) {
    CHECK(unicode("https://" + other + "/").empty());
  }
}

TEST_CASE("url: international names that are not valid") {
  expect_all({
      {"https://%ff.example/", "(invalid_host)"},
      {"https://\xe2\x84\x80.example/", "(invalid_host)"},  // maps to a/c
      {"https://a\xef\xbc\x8f"
       "b.example/",
       "(invalid_host)"},
      {"https://a\xef\xbc\x9a"
       "80.example/",
       "(invalid_host)"},
      {"https://a\xe3\x80\x80.example/", "(invalid_host)"},
      {"https://\xc2\xad.example/", "(invalid_host)"},
      {"https://\xc2\xad/", "(invalid_host)"},
      {"https://\xe2\x80\xae.example/", "(invalid_host)"},
      {"https://xn--.example/", "(invalid_host)"},
      {"https://xn--a.example/", "(invalid_host)"},
      {"https://xn--localhost-/", "(invalid_host)"},
      {"https://xn--example-.com/", "(invalid_host)"},
      {"https://xn--127-.0.0.1/", "(invalid_host)"},
      {"https://xn--99999999.example/", "(invalid_host)"},
      {"https://xn--bcher-kva8445foa.example/x", "(invalid_host)"},
      // Upper case inside, or characters that map to others: not what any
      // Unicode form encodes to.
      {"https://xn--a-ecp.ru/", "(invalid_host)"},
      {"https://xn--ls8h.la/", "(invalid_host)"},  // a symbol
      {"https://" + repeated("\xe4\xbe\x8b", 600) + ".example/",
       "(invalid_host)"},
      {"https://" + repeated("\xe4\xbe\x8b", 64) + ".example/",
       "(invalid_host)"},
  });
}

TEST_CASE("url: nobody hides an address or a local name behind characters") {
  for (const UrlPolicy& policy : {any_scheme(), with_private()}) {
    expect_all(
        {
            {"http://\xe2\x93\x9b\xe2\x93\x9e\xe2\x93\x92\xe2\x93\x90\xe2\x93"
             "\x9b\xe2\x93\x97\xe2\x93\x9e\xe2\x93\xa2\xe2\x93\xa3/",
             "(local_name)"},
            {"http://local\xc2\xadhost/", "(local_name)"},
            {"http://foo\xe3\x80\x82local/", "(local_name)"},
            {"http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1/",
             "(invalid_host)"},
            {"http://127\xe3\x80\x82"
             "0\xe3\x80\x82"
             "0\xe3\x80\x82"
             "1/",
             "(invalid_host)"},
            {"http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/",
             "(invalid_host)"},
            {"http://8\xe3\x80\x82"
             "8.8.8/",
             "(invalid_host)"},
            {"http://0\xef\xbd\x98"
             "7f.1/",
             "(invalid_host)"},
            {"http://127.0.0.1\xc2\xad/", "(invalid_host)"},
            {"http://%EF%BC%91.1.1.1/", "(invalid_host)"},
        },
        policy);
  }
}
