// Purpose: tests the test server, on which the tests of the engine depend.
// Thread: one.
#include "test_server.hpp"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "catch.hpp"

using namespace webhooks::test;
using Clock = std::chrono::steady_clock;

namespace {

struct Talk {
  int connect_error = 0;
  std::string received;
  bool ended = false;  // the server closed
  bool reset = false;
};

// Connects, sends, and reads until the server closes or `ms` are over.
Talk talk(std::uint16_t port, const std::string& bytes, int ms) {
  Talk out;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval patience{ms / 1000, (ms % 1000) * 1000};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) !=
      0) {
    out.connect_error = errno;
    ::close(fd);
    return out;
  }
  // The error of a reset is told once, to whichever call comes first.
  out.reset = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0;
  const auto end = Clock::now() + std::chrono::milliseconds(ms);
  std::array<char, 4096> buffer{};
  while (Clock::now() < end && !out.ended && !out.reset) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, 10) == 0) {
      continue;
    }
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got > 0) {
      out.received.append(buffer.data(), static_cast<std::size_t>(got));
    } else {
      out.ended = got == 0;
      out.reset = got < 0;
    }
  }
  ::close(fd);
  return out;
}

std::string post(const std::string& path, const std::string& body) {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

CURLcode get_tls(const std::string& url, const std::string& ca_file) {
  CURL* curl = curl_easy_init();
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file.c_str());
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 5000L);
  const CURLcode code = curl_easy_perform(curl);
  curl_easy_cleanup(curl);
  return code;
}

}  // namespace

TEST_CASE("test server: records requests and sends the given answers") {
  TestServer server;
  server.on("/a", answer(201, {{"X-One", "1"}, {"x-one", "2"}}, "hello"));
  const Talk got = talk(server.port(), post("/a?q=1", "body"), 200);
  CHECK(got.received ==
        "HTTP/1.1 201 Scripted\r\nX-One: 1\r\nx-one: 2\r\n"
        "Content-Length: 5\r\n\r\nhello");
  CHECK_FALSE(got.ended);  // keep-alive
  REQUIRE(server.count("/a") == 1);
  const Request request = server.requests("/a").front();
  CHECK(request.method == "POST");
  CHECK(request.target == "/a?q=1");
  CHECK(request.body == "body");
  CHECK(request.header("HOST") == "x");
  CHECK(request.local_ip == "127.0.0.1");
  CHECK(server.in_flight_peak("/a") == 1);
}

TEST_CASE("test server: one connection, several requests, a list of answers") {
  TestServer server;
  server.on("/a", std::vector<Reply>{answer(500), answer(200), answer(204)});
  talk(server.port(),
       post("/a", "1") + post("/a", "22") + post("/a", "") + post("/a", "4"),
       200);
  const auto requests = server.requests("/a");
  REQUIRE(requests.size() == 4);
  CHECK(requests[1].body == "22");
  CHECK(requests[3].connection == 1);
  CHECK(requests[3].on_connection == 4);
  CHECK(server.connections() == 1);
}

TEST_CASE("test server: waits, drips, endless, finish, close, reset, hang") {
  TestServer server;
  server.on("/wait", Reply().wait(120).answer(200));
  server.on("/drip", Reply().drip("0123456789", 10, 2).close());
  server.on("/endless", Reply().endless("ab"));
  server.on("/finish", Reply().answer(200).finish());
  server.on("/reset", Reply().reset());
  server.on("/hang", Reply().hang());

  const auto begin = Clock::now();
  CHECK(talk(server.port(), post("/wait", ""), 60).received.empty());
  CHECK(talk(server.port(), post("/drip", ""), 2000).received == "0123456789");
  CHECK(Clock::now() - begin >= std::chrono::milliseconds(100));
  CHECK(talk(server.port(), post("/endless", ""), 100).received.size() > 1000);
  CHECK(talk(server.port(), post("/finish", ""), 2000).ended);
  CHECK(talk(server.port(), post("/reset", ""), 2000).reset);
  const Talk hang = talk(server.port(), post("/hang", ""), 100);
  CHECK(hang.received.empty());
  CHECK_FALSE(hang.ended);
}

TEST_CASE("test server: an early answer does not wait for the body") {
  TestServer server;
  server.on("/early", Reply().early().answer(413));
  server.on("/late", answer(200));
  const std::string head = " HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc";
  CHECK(talk(server.port(), "POST /early" + head, 200).received.size() > 10);
  CHECK(talk(server.port(), "POST /late" + head, 100).received.empty());
  CHECK(server.count("/late") == 0);
}

TEST_CASE("test server: refuses, ignores and resets connections") {
  ServerOptions options;
  options.accept = ServerOptions::Accept::kNever;
  TestServer never(options);
  CHECK(talk(never.port(), "x", 150).connect_error != 0);

  options.accept = ServerOptions::Accept::kReset;
  TestServer reset(options);
  const Talk got = talk(reset.port(), "x", 1000);
  CHECK((got.reset || got.connect_error == ECONNRESET));

  options.accept = ServerOptions::Accept::kMute;
  TestServer mute(options);
  const Talk silence = talk(mute.port(), post("/", ""), 100);
  CHECK(silence.received.empty());
  CHECK_FALSE(silence.ended);

  const ClosedPort closed;
  CHECK(talk(closed.port(), "x", 1000).connect_error == ECONNREFUSED);

  Canary canary;
  CHECK(canary.touched() == 0);
  talk(canary.port(), "x", 20);
  CHECK(canary.touched() == 1);
}

TEST_CASE("test server: TLS, good and bad") {
  const Authority root("One name");
  const Authority impostor("One name");
  const TempFile ca(root.pem());
  const auto served = [&ca](const ServerTlsOptions& tls) {
    ServerOptions options;
    options.tls = std::make_shared<ServerTls>(tls);
    TestServer server(options);
    return get_tls(server.url("/"), ca.path());
  };
  const CertOptions here{{}, {"127.0.0.1"}};
  ServerTlsOptions tls{root.issue(here)};
  CHECK(served(tls) == CURLE_OK);

  tls.identity = Authority::self_signed(here);
  CHECK(served(tls) == CURLE_PEER_FAILED_VERIFICATION);
  tls.identity = Authority().issue(here);
  CHECK(served(tls) == CURLE_PEER_FAILED_VERIFICATION);
  tls.identity = impostor.issue(here);
  CHECK(served(tls) != CURLE_OK);
  tls.identity = root.issue({{"elsewhere.example"}, {}});
  CHECK(served(tls) == CURLE_PEER_FAILED_VERIFICATION);
  tls.identity = root.issue({{}, {"127.0.0.1"}, -7200, -3600});
  CHECK(served(tls) == CURLE_PEER_FAILED_VERIFICATION);

  tls.identity = root.intermediate().issue(here);
  CHECK(served(tls) == CURLE_OK);
  tls.leave_out_chain = true;
  CHECK(served(tls) == CURLE_PEER_FAILED_VERIFICATION);

  tls = {root.issue(here)};
  tls.ask_client_cert = true;
  CHECK(served(tls) == CURLE_OK);
  tls = {root.issue(here)};
  tls.version_max = TLS1_1_VERSION;
  CHECK(served(tls) == CURLE_SSL_CONNECT_ERROR);
}
