#include "webhooks/url.hpp"

#include <curl/curl.h>

#include <string>
#include <vector>

#include "catch.hpp"
#include "url_outcome.hpp"

using webhooks::AddressPolicy;
using webhooks::check_url;
using webhooks::Cidr;
using webhooks::kUrlBytesMax;
using webhooks::UrlPolicy;
using webhooks_test::any_scheme;
using webhooks_test::expect_all;
using webhooks_test::expect_refused;
using webhooks_test::outcome;
using webhooks_test::repeated;
using webhooks_test::with_private;
using webhooks_test::words;
using std::string_literals::operator""s;

TEST_CASE("url: one normalized form") {
  expect_all({
      {"https://example.com", "https://example.com/"},
      {"https://example.com/", "https://example.com/"},
      {"HTTPS://EXAMPLE.Com/Path?Query=A", "https://example.com/Path?Query=A"},
      {"hTtP://example.com", "http://example.com/"},
      {"https://example.com.", "https://example.com/"},
      {"https://example.com.:8443/x", "https://example.com:8443/x"},
      {"https://example.com:443/", "https://example.com/"},
      {"http://example.com:80/", "http://example.com/"},
      {"https://example.com:80/", "https://example.com:80/"},
      {"http://example.com:443/", "http://example.com:443/"},
      {"https://example.com:/x", "https://example.com/x"},
      {"https://example.com:0443/", "https://example.com/"},
      {"https://example.com:08443/", "https://example.com:8443/"},
      {"https://example.com:65535/", "https://example.com:65535/"},
      {"https://example.com?x=1", "https://example.com/?x=1"},
      {"https://example.com/a/./b/../c", "https://example.com/a/c"},
      {"https://example.com/../../x", "https://example.com/x"},
      {"https://example.com//x//y", "https://example.com//x//y"},
      {"https://example.com/x?a[]=1&b=2;c",
       "https://example.com/x?a[]=1&b=2;c"},
      {"https://example.com/a@b:c?d@e:f", "https://example.com/a@b:c?d@e:f"},
      {"https://example.com/%7Euser/%zz%", "https://example.com/%7Euser/%zz%"},
      {"https://example.com/?u=http://10.0.0.1/",
       "https://example.com/?u=http://10.0.0.1/"},
      {"https://example.com/\"<>^`{|}",
       "https://example.com/%22%3C%3E%5E%60%7B%7C%7D"},
      {"https://example.com/\u00e4?\u00f6",
       "https://example.com/%C3%A4?%C3%B6"},
      {"https://example.com/%FF", "https://example.com/%FF"},
      {"https://8.8.8.8/", "https://8.8.8.8/"},
      {"https://8.8.8.8./", "https://8.8.8.8/"},
      {"https://134744072/", "https://8.8.8.8/"},
      {"https://0x08080808/", "https://8.8.8.8/"},
      {"https://010.8.0X8.8/", "https://8.8.8.8/"},
      {"https://8.8.2056/", "https://8.8.8.8/"},
      {"https://8.526344/", "https://8.8.8.8/"},
      {"https://%38.8.8.8/", "https://8.8.8.8/"},
      {"https://[2606:4700:0:0::1111]:8443/x",
       "https://[2606:4700::1111]:8443/x"},
      {"https://[2606:4700::ABCD]", "https://[2606:4700::abcd]/"},
      {"https://[::ffff:808:808]/", "https://[::ffff:8.8.8.8]/"},
      {"https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b::808:808]/"},
      {"https://my_app.example.com/", "https://my_app.example.com/"},
      {"https://r3---sn-x.example.com/", "https://r3---sn-x.example.com/"},
      {"https://1.example.com/", "https://1.example.com/"},
      {"https://127.0.0.1.example.com/", "https://127.0.0.1.example.com/"},
      {"https://0x7f.example/", "https://0x7f.example/"},
      {"https://%65xample.com/", "https://example.com/"},
  });
}

TEST_CASE("url: its parts") {
  const auto url = check_url("HTTPS://Example.COM:8443/a?b", UrlPolicy{});
  REQUIRE(url.ok());
  CHECK(url.value().scheme == "https");
  CHECK(url.value().host == "example.com");
  CHECK(url.value().port == 8443);
  CHECK_FALSE(url.value().literal.has_value());

  const auto v6 = check_url("https://[2606:4700::1111]/", UrlPolicy{});
  REQUIRE(v6.ok());
  CHECK(v6.value().host == "2606:4700::1111");
  CHECK(v6.value().port == 443);
  REQUIRE(v6.value().literal.has_value());
  CHECK(v6.value().literal->to_string() == "2606:4700::1111");

  const auto v4 = check_url("http://134744072", any_scheme());
  REQUIRE(v4.ok());
  CHECK(v4.value().host == "8.8.8.8");
  CHECK(v4.value().port == 80);
  CHECK(v4.value().literal.has_value());
}

TEST_CASE("url: schemes") {
  for (const std::string_view scheme :
       words("file ftp ftps gopher dict ldap smb tftp telnet mqtt imap rtsp "
             "sftp ws javascript data httpx https+x ttp")) {
    INFO(scheme);
    CHECK(outcome(std::string(scheme) + "://example.com/") == "(scheme)");
  }
  CHECK(outcome("") == "(scheme)");
  expect_refused("scheme",
                 "example.com example.com:443/x //example.com/ /x "
                 "://example.com/ 1http://example.com/ "
                 "\ufeffhttps://example.com/ ht\u0167ps://example.com/");
  expect_refused("malformed", "https:example.com/ https:/example.com/ https:");
  expect_refused("missing_host",
                 "https:// https:/// https:///example.com/ "
                 "https:////example.com/ https://?x https://:443/");
  CHECK(outcome("http://example.com/", UrlPolicy{}) == "(https_required)");
  CHECK(outcome("https://example.com/", UrlPolicy{}) == "https://example.com/");
  CHECK(outcome("ftp://example.com/", UrlPolicy{}) == "(scheme)");
}

TEST_CASE("url: whitespace, control characters and backslashes anywhere") {
  const std::string base = "https://example.com/path?query";
  for (int byte = 0; byte <= 0x20; ++byte) {
    for (std::size_t at = 0; at <= base.size(); ++at) {
      std::string text = base;
      text.insert(at, 1, static_cast<char>(byte));
      if (outcome(text) != "(malformed)") {
        INFO(byte << " at " << at);
        CHECK(outcome(text) == "(malformed)");
      }
    }
  }
  expect_all({
      {"https://example.com/\x7f", "(malformed)"},
      {"https://example.com\\@10.0.0.1/", "(malformed)"},
      {"http://127.1.1.1:80\\@127.2.2.2:80/", "(malformed)"},
      {"https:\\\\example.com\\x", "(malformed)"},
      {"https://example.com/a\\b", "(malformed)"},
      {"https://example.com/?a\\b", "(malformed)"},
      {"https://example.com\r\nX-Evil: 1/", "(malformed)"},
      {"https://example.com\0.evil.org/"s, "(malformed)"},
  });
}

TEST_CASE("url: user info and fragments") {
  CHECK(outcome("https://example.com/%23x") == "https://example.com/%23x");
  expect_refused("user_info",
                 "https://user@example.com/ https://user:secret@example.com/ "
                 "https://@example.com/ https://:@example.com/ "
                 "https://a@b@example.com/ https://example.com:443@10.0.0.1/ "
                 "https://example.com@ https://[::1]@example.com/");
  expect_refused("invalid_host",
                 "https://user%40example.com/ https://user\uff20example.com/");
  expect_refused("fragment",
                 "https://example.com/#top https://example.com# "
                 "https://example.com?x#y https://example.com#@10.0.0.1/");
}

TEST_CASE("url: ports") {
  expect_refused("malformed",
                 "https://example.com:65536/ "
                 "https://example.com:99999999999999999999/ "
                 "https://example.com:-1/ https://example.com:+443/ "
                 "https://example.com:4a/ https://example.com:0x1bb/ "
                 "https://example.com:443:443/ https://example.com:%34%34%33/ "
                 "https://example.com:\uff14/ https://[2606:4700::1]x/ "
                 "https://[2606:4700::1]443/ https://2606:4700::1111/");
  // All of the Fetch standard's, each with its neighbours' fate left open.
  for (const int bad :
       {0,    1,    7,    9,    11,   13,   15,   17,   19,   20,   21,   22,
        23,   25,   37,   42,   43,   53,   69,   77,   79,   87,   95,   101,
        102,  103,  104,  109,  110,  111,  113,  115,  117,  119,  123,  135,
        137,  139,  143,  161,  179,  389,  427,  465,  512,  513,  514,  515,
        526,  530,  531,  532,  540,  548,  554,  556,  563,  587,  601,  636,
        989,  990,  993,  995,  1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
        5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}) {
    INFO(bad);
    CHECK(outcome("https://example.com:" + std::to_string(bad) + "/") ==
          "(blocked_port)");
  }
  for (const int good : {2, 24, 80, 443, 591, 1024, 3000, 4000, 8000, 8080,
                         8443, 8843, 10081, 65535}) {
    INFO(good);
    CHECK(check_url("https://example.com:" + std::to_string(good), any_scheme())
              .ok());
  }
  int allowed = 0;
  for (int port = 0; port <= 65535; ++port) {
    const auto url =
        check_url("https://a.bc:" + std::to_string(port), any_scheme());
    if (url.ok() && url.value().port == port) ++allowed;
  }
  CHECK(allowed == 65536 - 83);

  UrlPolicy chosen = any_scheme();
  chosen.ports = {443, 8443, 25};
  CHECK(check_url("https://example.com/", chosen).ok());
  CHECK(check_url("https://example.com:8443/", chosen).ok());
  // Named is named: an operator who lists a bad port means it.
  CHECK(check_url("https://example.com:25/", chosen).ok());
  CHECK(outcome("http://example.com/", chosen) == "(blocked_port)");
  chosen.ports = {0};
  CHECK(outcome("https://example.com:0/", chosen) == "(blocked_port)");
}

TEST_CASE("url: host names") {
  const std::string label(63, 'a');
  const std::string longest =  // 253 bytes
      label + "." + label + "." + label + "." + std::string(61, 'b');
  expect_all({
      {"https://" + longest + "/", "https://" + longest + "/"},
      {"https://" + longest + "./", "https://" + longest + "/"},
      {"https://" + longest + "b/", "(invalid_host)"},
      {"https://" + label + ".com/", "https://" + label + ".com/"},
      {"https://" + label + "a.com/", "(invalid_host)"},
  });
  expect_refused("invalid_host",
                 "https://./ https://../ https://.example.com/ "
                 "https://example..com/ https://example.com../ "
                 "https://-example.com/ https://example-.com/ "
                 "https://example.-com/ https://example.c_m/ "
                 "https://exa%mple.com/ https://exa%6/ https://exa%/ "
                 "https://example.com%/ https://example.com%2e%2e/ "
                 "https://example.com%2f.evil.org/ https://example.com%3a80/ "
                 "https://example.com%20/ https://example.com%0d%0a/ "
                 "https://example.com%00.evil.org/ https://%2531.1.1.1/ "
                 "https://exam!ple.com/ https://(example).com/ "
                 "https://$HOME.com/ https://*.example.com/ "
                 "https://{a,b}.example.com/ https://a,b.example.com/ "
                 "https://<x>.com/ https://foo.123/ https://foo.0x1f/ "
                 "https://foo.0x/ https://foo.0X1/ https://1.2.3.4.5/ "
                 "https://1.2.3.256/ https://256.2.3.4/ https://1.2.65536/ "
                 "https://1.16777216/ https://4294967296/ "
                 "https://99999999999999999999/ https://0x100000000/ "
                 "https://08.8.8.8/ https://8.8.8.08/ https://1..2/ "
                 "https://8.8.8.8../ https://8.8.8.8%20/ https://[::1/ "
                 "https://[]/ https://[/ https://]/ https://[8.8.8.8]/ "
                 "https://[example.com]/ https://[v1.fe80::a]/ "
                 "https://[1:2:3:4:5:6:7]/ https://[::1::]/ "
                 "https://[::ffff:256.1.1.1]/ https://[::ffff:010.1.1.1]/");
  expect_refused("zone_id",
                 "https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ "
                 "https://[::%25example.com]/");
}

TEST_CASE("url: bytes that are not UTF-8, wherever they are") {
  for (const std::string& bytes :
       {"\xff"s, "\xc3"s, "\xed\xa0\x80"s, "\xc0\xaf"s, "\xf4\x90\x80\x80"s}) {
    for (const std::string& url :
         {"https://" + bytes + ".example/", "https://example.com/" + bytes,
          "https://example.com/?x=" + bytes + std::string(40, 'y')}) {
      CHECK(outcome(url) == "(malformed)");
    }
  }
}

TEST_CASE("url: local names") {
  for (const std::string_view name :
       words("localhost LOCALHOST localhost. foo.localhost a.b.localhost. "
             "printer.local local x.internal metadata.google.internal "
             "router.home.arpa home.arpa x.onion n8n plausible metadata "
             "x.localdomain nas.lan nas.home intra.corp wiki.intranet "
             "x.private %6cocalhost loc%61l")) {
    const std::string host(name);
    INFO(host);
    CHECK(outcome("http://" + host + "/") == "(local_name)");
    CHECK(check_url("http://" + host + ":4000/", with_private()).ok());
  }
  for (const std::string_view name :
       words("notlocalhost.com localhost.example.com mylocal.example "
             "local.example internal.example arpa.example home.arpa.com "
             "1.in-addr.arpa onion.example example.mylan x.notlocal "
             "x.smith-home.arpa")) {
    const std::string host(name);
    INFO(host);
    CHECK(check_url("http://" + host + "/", any_scheme()).ok());
  }
}

TEST_CASE("url: policies on addresses") {
  CHECK(outcome("http://127.0.0.1:4000/x", with_private()) ==
        "http://127.0.0.1:4000/x");
  CHECK(outcome("http://[::1]/", with_private()) == "http://[::1]/");
  CHECK(outcome("http://10.1/", with_private()) == "http://10.0.0.1/");
  CHECK(outcome("http://169.254.169.254/", with_private()) ==
        "(blocked_address)");
  CHECK(outcome("http://0/", with_private()) == "(blocked_address)");
  UrlPolicy policy = any_scheme();
  policy.addresses = AddressPolicy(false, {Cidr::parse("10.0.0.0/8").value()});
  CHECK(outcome("http://10.2.3.4/", policy) == "http://10.2.3.4/");
  CHECK(outcome("http://[::ffff:10.2.3.4]/", policy) ==
        "http://[::ffff:10.2.3.4]/");
  CHECK(outcome("http://192.168.0.1/", policy) == "(blocked_address)");
  CHECK(outcome("http://n8n/", policy) == "(local_name)");
}

TEST_CASE("url: length is limited before and after normalizing") {
  const std::string start = "https://example.com/";
  const std::string longest =
      start + std::string(kUrlBytesMax - start.size(), 'a');
  CHECK(outcome(longest) == longest);
  CHECK(outcome(longest + "a") == "(too_long)");
  CHECK(outcome(start + repeated("\u00e4", 400)) == "(too_long)");
  CHECK(outcome(std::string(1 << 20, 'a')) == "(too_long)");
}

TEST_CASE("url: what is returned is what curl dials") {
  for (const std::string text :
       {"https://EXAMPLE.com.:8443/a/../b?c", "http://134744072:8080",
        "https://[2606:4700:0::1111]/", "https://b\u00fccher.example",
        "https://example.com/%2e%2e/x", "https://example.com/?"}) {
    INFO(text);
    const auto url = check_url(text, any_scheme());
    REQUIRE(url.ok());
    CURLU* handle = curl_url();
    REQUIRE(curl_url_set(handle, CURLUPART_URL, url.value().text.c_str(), 0) ==
            CURLUE_OK);
    const auto part = [&](CURLUPart which) {
      char* raw = nullptr;
      REQUIRE(curl_url_get(handle, which, &raw, CURLU_DEFAULT_PORT) ==
              CURLUE_OK);
      std::string value(raw);
      curl_free(raw);
      return value;
    };
    CHECK(part(CURLUPART_SCHEME) == url.value().scheme);
    CHECK(part(CURLUPART_PORT) == std::to_string(url.value().port));
    const std::string host = part(CURLUPART_HOST);
    CHECK((host == url.value().host || host == "[" + url.value().host + "]"));
    curl_url_cleanup(handle);
  }
}

TEST_CASE("url: no error repeats what may hold a token") {
  for (const std::string text :
       {"https://example.com/SECRET#x", "https://u:SECRET@example.com/",
        "https://10.0.0.1/SECRET?SECRET", "https://localhost/SECRET",
        "https://example.com:22/SECRET", "https://exa mple.com/SECRET",
        "ftp://example.com/SECRET", "https://foo.123/SECRET?SECRET",
        "https://example.com:x/SECRET", "http://example.com/SECRET"}) {
    INFO(text);
    const auto url = check_url(text, UrlPolicy{});
    REQUIRE_FALSE(url.ok());
    CHECK(url.error().detail.find("SECRET") == std::string::npos);
  }
}
