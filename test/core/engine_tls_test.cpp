// Purpose: a receiver that does not prove its identity gets no request.
// Thread: one; the server has its own.
#include <openssl/ssl.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "catch.hpp"
#include "core/curl_handles.hpp"
#include "dns_server.hpp"
#include "engine_support.hpp"
#include "test_server.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;

namespace {

constexpr const char* kName = "hook.example";

std::unique_ptr<TestServer> serve(const ServerTlsOptions& tls,
                                  ServerOptions options = {}) {
  options.tls = std::make_shared<ServerTls>(tls);
  return std::make_unique<TestServer>(std::move(options));
}

struct Trust {
  Authority root;
  TempFile file{root.pem()};
  DnsServer names;

  EngineOptions options() const {
    EngineOptions options = test_options();
    options.policy.https_only = true;
    options.ca_file = file.path();
    options.dns_servers = names.address();
    options.retry_delays_ms = {};
    return options;
  }
  // One attempt at https://hook.example/ with this certificate.
  Attempt attempt(const ServerTlsOptions& tls) const {
    const auto server = serve(tls);
    EngineRun run(options());
    run.endpoint("wh_1", server->url(kName, "/"));
    const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
    CHECK(server->count() ==
          (attempt.state == DeliveryState::kDelivered ? 1 : 0));
    return attempt;
  }
};

void check_refused(const Attempt& attempt, const std::string& hint) {
  INFO("detail: " << attempt.detail);
  CHECK(attempt.state == DeliveryState::kFailed);
  CHECK(error_name(attempt.error) == "tls_error");
  CHECK(attempt.status == 0);
  CHECK(attempt.detail.find(hint) != std::string::npos);
  CHECK(attempt.detail.size() <= kDetailBytesMax);
}

const CertOptions kGood{{kName}, {}};

}  // namespace

TEST_CASE("tls: a trusted certificate is accepted") {
  const Trust trust;
  const auto server = serve({trust.root.issue(kGood)});
  EngineRun run(trust.options());
  run.endpoint("wh_1", server->url(kName, "/"));
  const Attempt attempt = run.outcome(delivery("msg_1", "wh_1"));
  REQUIRE(attempt.state == DeliveryState::kDelivered);
  CHECK(attempt.remote_ip == "127.0.0.1");
  REQUIRE(attempt.dns_us.has_value());
  REQUIRE(attempt.connect_us.has_value());
  REQUIRE(attempt.tls_us.has_value());
  CHECK(*attempt.dns_us <= *attempt.connect_us);
  CHECK(*attempt.connect_us <= *attempt.tls_us);
  CHECK(*attempt.tls_us <= *attempt.first_byte_us);
  const Request request = server->requests().front();
  CHECK(request.server_name == kName);
  CHECK(request.tls_version == "TLSv1.3");
  CHECK_FALSE(request.sent_client_cert);
  // The second attempt reuses the connection, so only the answer takes time.
  const Attempt second = run.outcome(delivery("msg_2", "wh_1"));
  CHECK(second.state == DeliveryState::kDelivered);
  CHECK(server->connections() == 1);
  CHECK_FALSE(second.connect_us.has_value());
  CHECK_FALSE(second.tls_us.has_value());
}

TEST_CASE("tls: an intermediate certificate and TLS 1.2 are accepted") {
  const Trust trust;
  ServerTlsOptions tls{trust.root.intermediate().issue(kGood)};
  CHECK(trust.attempt(tls).state == DeliveryState::kDelivered);
  tls.version_max = TLS1_2_VERSION;
  CHECK(trust.attempt(tls).state == DeliveryState::kDelivered);
}

TEST_CASE("tls: untrusted certificates are refused") {
  const Trust trust;
  check_refused(trust.attempt({Authority::self_signed(kGood)}), "self");
  check_refused(trust.attempt({Authority().issue(kGood)}), "issuer");
  check_refused(trust.attempt({trust.root.issue({{kName}, {}, -7200, -60})}),
                "expired");
  check_refused(trust.attempt({trust.root.issue({{kName}, {}, 3600, 7200})}),
                "not yet valid");
  check_refused(trust.attempt({trust.root.issue({{"other.example"}, {}})}),
                "name");
  check_refused(trust.attempt({trust.root.issue({{"*.hook.example"}, {}})}),
                "name");
  check_refused(trust.attempt({trust.root.issue({{}, {"127.0.0.1"}})}), "name");
  ServerTlsOptions incomplete{trust.root.intermediate().issue(kGood)};
  incomplete.leave_out_chain = true;
  check_refused(trust.attempt(incomplete), "issuer");
}

TEST_CASE("tls: old versions and weak keys are refused") {
  const Trust trust;
  ServerTlsOptions old{trust.root.issue(kGood)};
  old.version_max = TLS1_1_VERSION;
  check_refused(trust.attempt(old), "");
  check_refused(
      trust.attempt({trust.root.issue({{kName}, {}, -3600, 86'400, 1024})}),
      "");
  check_refused(
      trust.attempt({trust.root.issue({{kName}, {}, -3600, 86'400, 0, true})}),
      "");
}

TEST_CASE("tls: an expensive key exchange is refused") {
  const Trust trust;
  ServerTlsOptions tls{trust.root.issue(kGood)};
  tls.groups = "ffdhe8192";
  check_refused(trust.attempt(tls), "");
  tls.groups = "P-384";
  CHECK(trust.attempt(tls).state == DeliveryState::kDelivered);
}

TEST_CASE("tls: a weak system configuration changes nothing") {
  const SystemTlsConfig lax(
      "MinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0");
  const Trust trust;
  const CertOptions rsa{{kName}, {}, -3600, 86'400, 2048};
  check_refused(
      trust.attempt({trust.root.issue({{kName}, {}, -3600, 86'400, 1024})}),
      "");
  check_refused(
      trust.attempt({trust.root.issue({{kName}, {}, -3600, 86'400, 0, true})}),
      "");
  ServerTlsOptions tls{trust.root.issue(rsa)};
  tls.version_max = TLS1_1_VERSION;
  check_refused(trust.attempt(tls), "");
  // Without ECDHE whoever gets the key later can read what was recorded.
  tls.version_max = TLS1_2_VERSION;
  for (const std::string ciphers :
       {"AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"}) {
    tls.ciphers = ciphers;
    check_refused(trust.attempt(tls), "");
  }
  tls.ciphers = "ECDHE-RSA-AES256-GCM-SHA384";
  CHECK(trust.attempt(tls).state == DeliveryState::kDelivered);
}

TEST_CASE("tls: the certificate must name the URL's address") {
  const Trust trust;
  const auto good = serve({trust.root.issue({{}, {"127.0.0.1"}})});
  const auto bad = serve({trust.root.issue({{kName}, {"127.0.0.2"}})});
  EngineRun run(trust.options());
  run.endpoint("wh_good", good->url("/"));
  run.endpoint("wh_bad", bad->url("/"));
  CHECK(run.outcome(delivery("msg_1", "wh_good")).state ==
        DeliveryState::kDelivered);
  check_refused(run.outcome(delivery("msg_2", "wh_bad")), "name");
  CHECK(bad->count() == 0);
  CHECK(good->requests().front().server_name.empty());
}

TEST_CASE("tls: the system's authorities do not vouch for a private one") {
  const Trust trust;
  const auto server = serve({trust.root.issue(kGood)});
  EngineOptions options = trust.options();
  options.ca_file.clear();
  EngineRun run(options);
  run.endpoint("wh_1", server->url(kName, "/"));
  check_refused(run.outcome(delivery("msg_1", "wh_1")), "issuer");
}

TEST_CASE("tls: environment variables do not add authorities") {
  const Trust trust;
  const Authority other;
  const TempFile other_file(other.pem());
  const TempFile key_log("");
  const auto server = serve({other.issue(kGood)});
  const auto good = serve({trust.root.issue(kGood)});
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE"}) {
    ::setenv(name, other_file.path().c_str(), 1);
  }
  EngineRun run(trust.options());
  run.endpoint("wh_1", server->url(kName, "/"));
  run.endpoint("wh_2", good->url(kName, "/"));
  check_refused(run.outcome(delivery("msg_1", "wh_1")), "issuer");
  CHECK(run.outcome(delivery("msg_2", "wh_2")).state ==
        DeliveryState::kDelivered);
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE"}) {
    ::unsetenv(name);
  }
}

TEST_CASE("tls: no client certificate is sent") {
  const Trust trust;
  ServerTlsOptions ask{trust.root.issue(kGood)};
  ask.ask_client_cert = true;
  CHECK(trust.attempt(ask).state == DeliveryState::kDelivered);
  ServerTlsOptions require{trust.root.issue(kGood)};
  require.require_client_cert = true;
  for (const int version : {0, TLS1_2_VERSION}) {
    require.version_max = version;
    const Attempt attempt = trust.attempt(require);
    INFO("detail: " << attempt.detail);
    CHECK(attempt.state == DeliveryState::kFailed);
    CHECK(error_name(attempt.error) == "tls_error");
  }
}

TEST_CASE("tls: a peer that is silent or does not speak TLS") {
  const Trust trust;
  ServerOptions how;
  how.greeting = "SSH-2.0-OpenSSH_9.2\r\n";
  TestServer other(how);
  how.greeting.clear();
  how.accept = ServerOptions::Accept::kMute;
  TestServer mute(how);
  how.accept = ServerOptions::Accept::kReset;
  TestServer reset(how);
  EngineOptions options = trust.options();
  options.timeout_ms = 600;
  options.connect_timeout_ms = 300;
  EngineRun run(options);
  const auto https = [](const TestServer& server) {
    return "https://hook.example:" + std::to_string(server.port()) + "/";
  };
  run.endpoint("wh_other", https(other));
  run.endpoint("wh_mute", https(mute));
  run.endpoint("wh_reset", https(reset));
  check_refused(run.outcome(delivery("msg_1", "wh_other")), "wrong version");
  const auto begin = std::chrono::steady_clock::now();
  const Attempt silent = run.outcome(delivery("msg_2", "wh_mute"));
  CHECK(error_name(silent.error) == "tls_timeout");
  CHECK(std::chrono::steady_clock::now() - begin < 1s * kSlowdown);
  const Attempt broken = run.outcome(delivery("msg_3", "wh_reset"));
  INFO("detail: " << broken.detail);
  CHECK((broken.error == ErrorClass::kTlsError ||
         broken.error == ErrorClass::kConnectionReset));
}

TEST_CASE("tls: a connection that ends inside the answer") {
  const Trust trust;
  const auto server = serve({trust.root.issue(kGood)});
  server->on("/early", Reply().send("HTTP/1.1 200 OK\r\nX-").reset());
  server->on("/late",
             Reply()
                 .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
                 .wait(20)
                 .reset());
  EngineRun run(trust.options());
  run.endpoint("wh_early", server->url(kName, "/early"));
  run.endpoint("wh_late", server->url(kName, "/late"));
  CHECK(run.outcome(delivery("msg_1", "wh_early")).state ==
        DeliveryState::kFailed);
  const Attempt late = run.outcome(delivery("msg_2", "wh_late"));
  CHECK(late.state == DeliveryState::kDelivered);
  CHECK(late.response_truncated);
}

TEST_CASE("tls: http is refused when only https is allowed") {
  const Trust trust;
  TestServer plain;
  EngineRun run(trust.options());
  Endpoint endpoint;
  endpoint.webhook_id = "wh_1";
  endpoint.url = unchecked_url("http", "127.0.0.1", plain.port(), "/");
  endpoint.keys.push_back({SigningKey::parse(kSecretA).value(), std::nullopt});
  REQUIRE(run.engine().put_endpoint(std::move(endpoint)).ok());
  CHECK(run.outcome(delivery("msg_1", "wh_1")).state == DeliveryState::kFailed);
  CHECK(plain.connections() == 0);
}

TEST_CASE("tls: authorities that are installed later are read") {
  const Authority root;
  const TempFile file("");
  const std::string path = file.path();
  std::filesystem::remove(path);
  const std::array bundles = {"/nonexistent/ca.pem", path.c_str()};
  auto loaded = TrustStore::load("", bundles);
  REQUIRE(loaded.ok());
  TrustStore trust = std::move(loaded).value();
  const auto authorities = [&trust] {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    REQUIRE(trust.configure(context));
    const int count = sk_X509_OBJECT_num(
        X509_STORE_get0_objects(SSL_CTX_get_cert_store(context)));
    SSL_CTX_free(context);
    return count;
  };
  trust.refresh(1);
  CHECK(authorities() == 0);
  std::ofstream(path) << root.pem();
  trust.refresh(1'000'001);
  CHECK(authorities() == 1);
}

TEST_CASE("tls: a file that holds no certificate is refused at the start") {
  EngineOptions options = test_options();
  const TempFile empty("");
  const TempFile garbage("-----BEGIN CERTIFICATE-----\nnot one\n");
  for (const std::string& path :
       {empty.path(), garbage.path(), std::string("/nonexistent/ca.pem"),
        std::string("/")}) {
    INFO(path);
    options.ca_file = path;
    const auto engine = Engine::create(options);
    REQUIRE_FALSE(engine.ok());
    CHECK(engine.error().reason == "ca_file");
  }
}
