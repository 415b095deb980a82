// Purpose: a throw-away certificate authority, made anew in every test, and the
// server side of TLS in every shape a client has to refuse.
// Ownership: handles are RAII; files are removed with their TempFile.
// Thread: an Authority belongs to one thread; a ServerTls is immutable and may
// be shared.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace webhooks::test {

struct CertOptions {
  std::vector<std::string> names;     // DNS names
  std::vector<std::string> ips;       // addresses
  std::int64_t valid_from_s = -3600;  // from now
  std::int64_t valid_to_s = 86'400;
  int rsa_bits = 0;   // 0: a P-256 key
  bool sha1 = false;  // signed with SHA-1
};

// A certificate with what it takes to serve it.
struct Identity {
  std::string chain_pem;  // its own first, then intermediates
  std::string key_pem;
};

class Authority {
 public:
  // A self-signed root. Empty: a name that no other authority has.
  explicit Authority(const std::string& name = {});
  ~Authority();
  Authority(Authority&&) noexcept;
  Authority& operator=(Authority&&) noexcept;

  // An authority below this one; its identities carry its certificate.
  Authority intermediate() const;
  Identity issue(const CertOptions& options) const;
  const std::string& pem() const noexcept;

  static Identity self_signed(const CertOptions& options);

 private:
  struct Impl;
  explicit Authority(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct ServerTlsOptions {
  Identity identity;
  bool leave_out_chain = false;  // serves the leaf alone
  int version_max = 0;           // 0, TLS1_1_VERSION, TLS1_2_VERSION, ...
  std::string ciphers = "ALL";   // with version_max
  std::string groups{};          // of the key exchange; empty: OpenSSL's
  bool ask_client_cert = false;
  bool require_client_cert = false;
};

class ServerTls {
 public:
  explicit ServerTls(const ServerTlsOptions& options);
  ~ServerTls();
  ServerTls(const ServerTls&) = delete;
  ServerTls& operator=(const ServerTls&) = delete;

  SSL* new_connection(int fd) const;

 private:
  SSL_CTX* context_ = nullptr;
};

// While it lives, OpenSSL gives these lines of its configuration file to every
// new context.
class SystemTlsConfig {
 public:
  explicit SystemTlsConfig(const std::string& lines);
  ~SystemTlsConfig();
  SystemTlsConfig(const SystemTlsConfig&) = delete;
  SystemTlsConfig& operator=(const SystemTlsConfig&) = delete;
};

// A file with this content in the temporary folder.
class TempFile {
 public:
  explicit TempFile(const std::string& content);
  ~TempFile();
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace webhooks::test
