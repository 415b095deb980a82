// Purpose: makes certificates and server contexts with OpenSSL.
// Ownership: every OpenSSL object is held by a unique_ptr here.
// Thread: see the header.
#include "tls_support.hpp"

#include <openssl/bio.h>
#include <openssl/conf.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <stdexcept>
#include <utility>

namespace webhooks::test {
namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Cert = std::unique_ptr<X509, Deleter<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;

void require(bool ok, const char* what) {
  if (!ok) {
    throw std::runtime_error(std::string("tls_support: ") + what);
  }
}

std::uint64_t random_number() {
  std::uint64_t number = 1;
  std::array<unsigned char, 7> random{};
  require(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1,
          "random");
  for (const unsigned char byte : random) {
    number = (number << 8) | byte;
  }
  return number;
}

// Verifiers find an issuer by its name: two roots of one name would make an
// untrusted root look like a forged signature.
std::string unique_name(const char* base) {
  return std::string(base) + ' ' + std::to_string(random_number());
}

Key make_key(int rsa_bits) {
  Key key(rsa_bits > 0 ? EVP_RSA_gen(static_cast<unsigned int>(rsa_bits))
                       : EVP_EC_gen("P-256"));
  require(key != nullptr, "key");
  return key;
}

std::string pem_of(X509* cert) {
  const Bio bio(BIO_new(BIO_s_mem()));
  require(PEM_write_bio_X509(bio.get(), cert) == 1, "write certificate");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string pem_of(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  require(PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr,
                                   nullptr) == 1,
          "write key");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

void add_extension(X509* cert, X509* issuer, int nid, const std::string& text) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, cert, nullptr, nullptr, 0);
  const Extension extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, text.c_str()));
  require(extension != nullptr, "extension");
  require(X509_add_ext(cert, extension.get(), -1) == 1, "add extension");
}

struct Template {
  std::string common_name;
  std::string alternative_names;  // "DNS:a,IP:b"
  std::int64_t valid_from_s = -3600;
  std::int64_t valid_to_s = 86'400;
  bool is_authority = false;
  bool sha1 = false;
};

// `issuer` null: self-signed.
Cert make_cert(const Template& wish, EVP_PKEY* key, X509* issuer,
               EVP_PKEY* issuer_key) {
  Cert cert(X509_new());
  require(cert != nullptr, "certificate");
  X509_set_version(cert.get(), X509_VERSION_3);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert.get()), random_number());
  X509_gmtime_adj(X509_getm_notBefore(cert.get()),
                  static_cast<long>(wish.valid_from_s));
  X509_gmtime_adj(X509_getm_notAfter(cert.get()),
                  static_cast<long>(wish.valid_to_s));
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(cert.get()), "CN", MBSTRING_UTF8,
      reinterpret_cast<const unsigned char*>(wish.common_name.c_str()), -1, -1,
      0);
  X509* const parent = issuer == nullptr ? cert.get() : issuer;
  X509_set_issuer_name(cert.get(), X509_get_subject_name(parent));
  X509_set_pubkey(cert.get(), key);
  add_extension(cert.get(), parent, NID_basic_constraints,
                wish.is_authority ? "critical,CA:TRUE" : "CA:FALSE");
  add_extension(cert.get(), parent, NID_subject_key_identifier, "hash");
  if (wish.is_authority) {
    add_extension(cert.get(), parent, NID_key_usage, "keyCertSign,cRLSign");
  }
  if (!wish.alternative_names.empty()) {
    add_extension(cert.get(), parent, NID_subject_alt_name,
                  wish.alternative_names);
  }
  require(X509_sign(cert.get(), issuer_key == nullptr ? key : issuer_key,
                    wish.sha1 ? EVP_sha1() : EVP_sha256()) != 0,
          "sign");
  return cert;
}

Template leaf_template(const CertOptions& options) {
  Template wish;
  wish.common_name = options.names.empty() ? "leaf" : options.names.front();
  const auto add = [&wish](const char* kind, const std::string& name) {
    if (!wish.alternative_names.empty()) {
      wish.alternative_names += ',';
    }
    wish.alternative_names += kind + name;
  };
  for (const std::string& name : options.names) {
    add("DNS:", name);
  }
  for (const std::string& ip : options.ips) {
    add("IP:", ip);
  }
  wish.valid_from_s = options.valid_from_s;
  wish.valid_to_s = options.valid_to_s;
  wish.sha1 = options.sha1;
  return wish;
}

}  // namespace

struct Authority::Impl {
  Key key;
  Cert cert;
  std::string pem;
  std::string chain_pem;  // what its identities have to carry
};

Authority::Authority(const std::string& name)
    : impl_(std::make_unique<Impl>()) {
  impl_->key = make_key(0);
  Template wish;
  wish.common_name = name.empty() ? unique_name("Throw-away root") : name;
  wish.is_authority = true;
  impl_->cert = make_cert(wish, impl_->key.get(), nullptr, nullptr);
  impl_->pem = pem_of(impl_->cert.get());
}
Authority::Authority(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Authority::~Authority() = default;
Authority::Authority(Authority&&) noexcept = default;
Authority& Authority::operator=(Authority&&) noexcept = default;

const std::string& Authority::pem() const noexcept { return impl_->pem; }

Authority Authority::intermediate() const {
  auto below = std::make_unique<Impl>();
  below->key = make_key(0);
  Template wish;
  wish.common_name = unique_name("Throw-away intermediate");
  wish.is_authority = true;
  below->cert =
      make_cert(wish, below->key.get(), impl_->cert.get(), impl_->key.get());
  below->pem = pem_of(below->cert.get());
  below->chain_pem = below->pem + impl_->chain_pem;
  return Authority(std::move(below));
}

Identity Authority::issue(const CertOptions& options) const {
  const Key key = make_key(options.rsa_bits);
  const Cert cert = make_cert(leaf_template(options), key.get(),
                              impl_->cert.get(), impl_->key.get());
  return {pem_of(cert.get()) + impl_->chain_pem, pem_of(key.get())};
}

Identity Authority::self_signed(const CertOptions& options) {
  const Key key = make_key(options.rsa_bits);
  const Cert cert =
      make_cert(leaf_template(options), key.get(), nullptr, nullptr);
  return {pem_of(cert.get()), pem_of(key.get())};
}

ServerTls::ServerTls(const ServerTlsOptions& options)
    : context_(SSL_CTX_new(TLS_server_method())) {
  require(context_ != nullptr, "context");
  // Old versions and weak keys have to get as far as the client's refusal.
  SSL_CTX_set_security_level(context_, 0);
  SSL_CTX_set_options(context_, SSL_OP_NO_RENEGOTIATION);
  if (options.version_max != 0) {
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_, options.version_max);
    SSL_CTX_set_cipher_list(context_,
                            (options.ciphers + ":@SECLEVEL=0").c_str());
  }
  if (!options.groups.empty()) {
    SSL_CTX_set1_groups_list(context_, options.groups.c_str());
  }
  if (options.ask_client_cert || options.require_client_cert) {
    SSL_CTX_set_verify(
        context_,
        SSL_VERIFY_PEER |
            (options.require_client_cert ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
        nullptr);
  }
  const Bio chain(
      BIO_new_mem_buf(options.identity.chain_pem.data(),
                      static_cast<int>(options.identity.chain_pem.size())));
  const Cert leaf(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
  require(SSL_CTX_use_certificate(context_, leaf.get()) == 1, "leaf");
  while (!options.leave_out_chain) {
    Cert next(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
    if (next == nullptr) {
      break;
    }
    require(SSL_CTX_add1_chain_cert(context_, next.get()) == 1, "chain");
  }
  const Bio key_bio(
      BIO_new_mem_buf(options.identity.key_pem.data(),
                      static_cast<int>(options.identity.key_pem.size())));
  const Key key(
      PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  require(SSL_CTX_use_PrivateKey(context_, key.get()) == 1, "key");
}

ServerTls::~ServerTls() { SSL_CTX_free(context_); }

SSL* ServerTls::new_connection(int fd) const {
  SSL* const ssl = SSL_new(context_);
  require(ssl != nullptr && SSL_set_fd(ssl, fd) == 1, "connection");
  SSL_set_accept_state(ssl);
  SSL_set_mode(
      ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return ssl;
}

SystemTlsConfig::SystemTlsConfig(const std::string& lines) {
  const TempFile file(
      "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\n"
      "system_default = tls\n[tls]\n" +
      lines + "\n");
  require(CONF_modules_load_file(file.path().c_str(), nullptr, 0) == 1,
          "load the configuration");
}
SystemTlsConfig::~SystemTlsConfig() { CONF_modules_finish(); }

TempFile::TempFile(const std::string& content) {
  const char* folder = std::getenv("TMPDIR");
  path_ = std::string(folder == nullptr ? "/tmp" : folder) +
          "/webhooks-test-XXXXXX";
  const int fd = ::mkstemp(path_.data());
  require(fd >= 0, "temporary file");
  const ssize_t written = ::write(fd, content.data(), content.size());
  ::close(fd);
  require(written == static_cast<ssize_t>(content.size()), "write file");
}

TempFile::~TempFile() { ::unlink(path_.c_str()); }

}  // namespace webhooks::test
