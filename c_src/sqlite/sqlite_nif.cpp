// Purpose: SQLite for the embedded store: open a file, run one statement,
// close.
// Ownership: the resource owns the connection and its prepared statements. The
// process that opened it is monitored: its death interrupts the statement that
// runs, so that its successor need not wait, and every later call is refused.
// Thread: open, execute and close on dirty IO schedulers, one at a time per
// connection (a second one is refused). Death and destruction on any.
//
// Rejected: the sqlite3 application's port driver. It frees a connection that
// is in use when the VM halts or its process is killed. Here a running
// statement holds the resource, and SQLite has nothing that exit(3) frees.
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "nif/nif_resource.hpp"
#include "nif/nif_support.hpp"

namespace webhooks::nif {
namespace {

// The store has some forty statements and uses a few of them all the time.
constexpr std::size_t kStatementsMax = 16;
constexpr std::size_t kSqlBytesMax = std::size_t{64} * 1024;
constexpr unsigned kParametersMax = 64;

struct Statement {
  std::string sql;
  sqlite3_stmt* prepared = nullptr;
};

struct Connection {
  static constexpr char kName[] = "plausible_webhooks_sqlite";

  Connection() = default;
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void owner_down() noexcept { orphaned.store(true); }

  sqlite3* db = nullptr;
  std::atomic<bool> busy{false};
  std::atomic<bool> orphaned{false};  // its process is dead
  std::vector<Statement> statements;  // most recently used first
};

// Holds the connection for one call.
class ConnectionLock {
 public:
  explicit ConnectionLock(Connection& connection) : connection_(connection) {
    if (connection_.busy.exchange(true)) {
      throw Refused{"busy"};
    }
  }
  ~ConnectionLock() { connection_.busy.store(false); }
  ConnectionLock(const ConnectionLock&) = delete;
  ConnectionLock& operator=(const ConnectionLock&) = delete;

 private:
  Connection& connection_;
};

// Ends a statement with the call: its parameters are bound without a copy.
class Reset {
 public:
  explicit Reset(sqlite3_stmt* statement) noexcept : statement_(statement) {}
  ~Reset() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Reset(const Reset&) = delete;
  Reset& operator=(const Reset&) = delete;

 private:
  sqlite3_stmt* statement_;
};

void finalize_all(Connection& connection) noexcept {
  for (const Statement& statement : connection.statements) {
    sqlite3_finalize(statement.prepared);
  }
  connection.statements.clear();
}

void close_database(Connection& connection) noexcept {
  finalize_all(connection);
  sqlite3_close_v2(connection.db);
  connection.db = nullptr;
}

// SQLite calls it every so many steps of a statement. Rejected:
// sqlite3_interrupt from owner_down, which has no effect just before the first
// step.
int is_orphaned(void* argument) {
  return static_cast<Connection*>(argument)->orphaned.load() ? 1 : 0;
}

void* close_elsewhere(void* argument) {
  sqlite3_close_v2(static_cast<sqlite3*>(argument));
  return nullptr;
}

// The connection is still open only if its process was killed. Freeing a cache
// of megabytes and closing files takes too long for the scheduler that drops
// the last reference. Closing rolls back an open transaction and leaves the
// write-ahead log to the next connection.
Connection::~Connection() {
  finalize_all(*this);
  if (db != nullptr) {
    sqlite3_progress_handler(db, 0, nullptr, nullptr);
    run_detached(close_elsewhere, db);
  }
}

ERL_NIF_TERM sqlite_error(ErlNifEnv* env, int code, std::string_view text) {
  constexpr int kPrimaryCode = 0xff;
  return enif_make_tuple2(
      env, atoms::error,
      enif_make_tuple2(env, enif_make_int(env, code & kPrimaryCode),
                       make_binary(env, text)));
}

ERL_NIF_TERM error_of(ErlNifEnv* env, sqlite3* db, int code) {
  return sqlite_error(env, code, sqlite3_errmsg(db));
}

// The file may be anybody's. SQL cannot make these settings.
void harden(sqlite3* db) {
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
}

ERL_NIF_TERM open(ErlNifEnv* env, int /*argc*/, const ERL_NIF_TERM argv[]) {
  return guard(env, [&] {
    const std::string path(expected(as_binary(env, argv[0])));
    expect(path.find('\0') == std::string::npos);
    const auto [connection, term] = Resource<Connection>::make(env);
    connection.statements.reserve(kStatementsMax + 1);
    // NOMUTEX: ConnectionLock admits one call at a time.
    const int code =
        sqlite3_open_v2(path.c_str(), &connection.db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
    if (code != SQLITE_OK) {
      const ERL_NIF_TERM error = connection.db == nullptr
                                     ? sqlite_error(env, code, "out of memory")
                                     : error_of(env, connection.db, code);
      close_database(connection);
      return error;
    }
    harden(connection.db);
    constexpr int kStepsBetween = 10'000;
    sqlite3_progress_handler(connection.db, kStepsBetween, is_orphaned,
                             &connection);
    return make_ok(env, term);
  });
}

// The statement of this text, kept or prepared now. nullptr: see *code, which
// is SQLITE_OK for a text without a statement.
sqlite3_stmt* prepare(Connection& connection, std::string_view sql, int* code) {
  auto& statements = connection.statements;
  const auto found =
      std::find_if(statements.begin(), statements.end(),
                   [&](const Statement& kept) { return kept.sql == sql; });
  if (found != statements.end()) {
    std::rotate(statements.begin(), found, found + 1);
    *code = SQLITE_OK;
    return statements.front().prepared;
  }
  Statement made{std::string(sql), nullptr};
  const char* rest = nullptr;
  *code = sqlite3_prepare_v3(connection.db, made.sql.c_str(),
                             static_cast<int>(made.sql.size() + 1),
                             SQLITE_PREPARE_PERSISTENT, &made.prepared, &rest);
  if (*code != SQLITE_OK || made.prepared == nullptr) {
    return nullptr;
  }
  if (std::string_view(rest).find_first_not_of(" \t\r\n;") !=
      std::string_view::npos) {
    // A second statement would not be executed.
    sqlite3_finalize(made.prepared);
    *code = SQLITE_MISUSE;
    return nullptr;
  }
  if (statements.size() == kStatementsMax) {
    sqlite3_finalize(statements.back().prepared);
    statements.pop_back();
  }
  statements.insert(statements.begin(), std::move(made));
  return statements.front().prepared;
}

// Binds binaries in place: the caller's terms live until the call returns.
int bind(ErlNifEnv* env, sqlite3_stmt* statement, int index,
         ERL_NIF_TERM term) {
  if (const auto number = as_int64(env, term)) {
    return sqlite3_bind_int64(statement, index, *number);
  }
  if (const auto text = as_binary(env, term)) {
    return sqlite3_bind_text64(statement, index, text->data(), text->size(),
                               SQLITE_STATIC, SQLITE_UTF8);
  }
  if (is_nil(term)) {
    return sqlite3_bind_null(statement, index);
  }
  const ERL_NIF_TERM* pair = as_pair(env, term);
  expect(pair != nullptr &&
         enif_is_identical(pair[0], static_atom(env, "blob")) != 0);
  const auto bytes = expected(as_binary(env, pair[1]));
  // A null pointer would bind NULL.
  return sqlite3_bind_blob64(statement, index,
                             bytes.empty() ? "" : bytes.data(), bytes.size(),
                             SQLITE_STATIC);
}

ERL_NIF_TERM column(ErlNifEnv* env, sqlite3_stmt* statement, int index) {
  switch (sqlite3_column_type(statement, index)) {
    case SQLITE_INTEGER:
      return enif_make_int64(env, sqlite3_column_int64(statement, index));
    case SQLITE_FLOAT: {
      // Erlang has no infinities.
      const double value = sqlite3_column_double(statement, index);
      return std::isfinite(value) ? enif_make_double(env, value) : atoms::nil;
    }
    case SQLITE_NULL:
      return atoms::nil;
    default: {
      const void* data = sqlite3_column_blob(statement, index);
      const auto size =
          static_cast<std::size_t>(sqlite3_column_bytes(statement, index));
      return make_binary(
          env, std::string_view(static_cast<const char*>(data), size));
    }
  }
}

ERL_NIF_TERM rows_of(ErlNifEnv* env, sqlite3* db, sqlite3_stmt* statement) {
  std::vector<ERL_NIF_TERM> rows;
  std::vector<ERL_NIF_TERM> row;
  int code = SQLITE_OK;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    // Counted here: the first step may prepare it again for a new schema.
    const int columns = sqlite3_column_count(statement);
    row.clear();
    for (int i = 0; i < columns; ++i) {
      row.push_back(column(env, statement, i));
    }
    rows.push_back(enif_make_tuple_from_array(env, row.data(),
                                              static_cast<unsigned>(columns)));
  }
  return code == SQLITE_DONE ? make_ok(env, make_list(env, rows))
                             : error_of(env, db, code);
}

// A statement reaches no other file, except that VACUUM INTO attaches its copy.
class Attaching {
 public:
  Attaching(sqlite3* db, std::string_view sql) : db_(db) {
    sqlite3_limit(db_, SQLITE_LIMIT_ATTACHED,
                  sql.starts_with("VACUUM INTO ") ? 1 : 0);
  }
  ~Attaching() { sqlite3_limit(db_, SQLITE_LIMIT_ATTACHED, 0); }
  Attaching(const Attaching&) = delete;
  Attaching& operator=(const Attaching&) = delete;

 private:
  sqlite3* db_;
};

ERL_NIF_TERM execute(ErlNifEnv* env, int /*argc*/, const ERL_NIF_TERM argv[]) {
  return guard(env, [&] {
    Connection& connection = Resource<Connection>::get(env, argv[0]);
    const auto sql = expected(as_binary(env, argv[1]));
    unsigned count = 0;
    expect(sql.size() <= kSqlBytesMax &&
           sql.find('\0') == std::string_view::npos &&
           enif_get_list_length(env, argv[2], &count) != 0 &&
           count <= kParametersMax);
    const ConnectionLock lock(connection);
    if (connection.db == nullptr || connection.orphaned.load()) {
      throw Refused{"closed"};
    }
    int code = SQLITE_OK;
    sqlite3_stmt* statement = prepare(connection, sql, &code);
    if (code == SQLITE_MISUSE) {
      return sqlite_error(env, code, "more than one statement");
    }
    if (code != SQLITE_OK) {
      return error_of(env, connection.db, code);
    }
    if (statement == nullptr) {
      return make_ok(env, enif_make_list(env, 0));
    }
    const Reset reset(statement);
    if (count !=
        static_cast<unsigned>(sqlite3_bind_parameter_count(statement))) {
      return sqlite_error(env, SQLITE_RANGE, "wrong number of parameters");
    }
    ERL_NIF_TERM head;
    ERL_NIF_TERM list = argv[2];
    for (int i = 1; enif_get_list_cell(env, list, &head, &list) != 0; ++i) {
      code = bind(env, statement, i, head);
      if (code != SQLITE_OK) {
        return error_of(env, connection.db, code);
      }
    }
    const Attaching attaching(connection.db, sql);
    return rows_of(env, connection.db, statement);
  });
}

ERL_NIF_TERM close(ErlNifEnv* env, int /*argc*/, const ERL_NIF_TERM argv[]) {
  return guard(env, [&] {
    Connection& connection = Resource<Connection>::get(env, argv[0]);
    const ConnectionLock lock(connection);
    if (connection.db != nullptr) {
      // An orderly close has the time to write the log into the file.
      sqlite3_db_config(connection.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0,
                        nullptr);
    }
    close_database(connection);
    return atoms::ok;
  });
}

int open_library(ErlNifEnv* env) noexcept {
  // Without threads SQLite does not guard its globals.
  if (sqlite3_threadsafe() == 0) {
    return 2;
  }
  if (sqlite3_initialize() != SQLITE_OK) {
    return 3;
  }
  create_basic_atoms(env);
  return Resource<Connection>::open_type(env) ? 0 : 4;
}

ErlNifFunc functions[] = {
    {"open", 1, open, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"execute", 3, execute, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"close", 1, close, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

}  // namespace
}  // namespace webhooks::nif

ERL_NIF_INIT(Elixir.Plausible.Webhooks.Store.SQLite.Native,
             webhooks::nif::functions,
             webhooks::nif::load<webhooks::nif::open_library>, nullptr,
             webhooks::nif::upgrade<webhooks::nif::open_library>, nullptr)
