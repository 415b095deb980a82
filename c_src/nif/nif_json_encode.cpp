// Purpose: encode/1: walks a term into the JSON writer, counts the work, and
// keeps the path to a fault.
// Ownership: terms are the calling NIF's. The walk destroys its map iterators.
// Thread: any scheduler. A term that needs more than a normal scheduler may
// spend starts over on a dirty one.
#include <algorithm>
#include <array>
#include <limits>

#include "core/ascii.hpp"
#include "nif/nif_atoms.hpp"
#include "nif/nif_functions.hpp"
#include "nif/nif_support.hpp"
#include "webhooks/json_writer.hpp"
#include "webhooks/utf8.hpp"

namespace webhooks::nif {
namespace {

// A unit of work is about a nanosecond, two on a slow machine. A byte of text
// costs one unit, and one more for each byte that escapes add. The other costs
// are measured and rounded up.
constexpr std::size_t kNodeWork = 16;  // a term or a key
constexpr std::size_t kFloatWork = 32;
// What a call may spend on a normal scheduler: far less than a millisecond,
// because the count is an estimate.
constexpr std::size_t kNormalWorkMax = 32'768;
constexpr std::size_t kWorkPerUs = 655;

// Keys in a path are cut: they may have any size.
constexpr std::size_t kPathKeyBytesMax = 64;

std::string_view cut(std::string_view utf8) noexcept {
  const std::string_view front = utf8.substr(0, kPathKeyBytesMax);
  return front.substr(0, utf8_error_offset(front).value_or(front.size()));
}

// What a walk throws.
struct OutOfWork {};
struct Fault {
  std::string_view reason;
};

// Not recursive: the sender decides how deep a term is, and a dirty scheduler's
// stack is small.
class TermWalk {
 public:
  TermWalk(ErlNifEnv* env, JsonWriter& writer, std::size_t work_max) noexcept
      : env_(env), writer_(writer), work_max_(work_max) {}
  ~TermWalk();
  TermWalk(const TermWalk&) = delete;
  TermWalk& operator=(const TermWalk&) = delete;

  void run(ERL_NIF_TERM root);

  std::size_t work() const noexcept { return work_; }
  // After a Fault: the path to it from the root.
  ERL_NIF_TERM path();

 private:
  struct Frame {
    ErlNifMapIterator entries;  // of a map
    ERL_NIF_TERM rest;          // of a list
    ERL_NIF_TERM key;           // of the entry being written
    std::size_t taken;          // elements taken off the list
    bool is_map;
    bool has_key;
    ErlNifTermType key_type;  // of all keys so far
  };
  using AtomText = std::array<char, 256>;

  [[noreturn]] static void fail(std::string_view reason) {
    throw Fault{reason};
  }
  void written(bool ok) const {
    if (!ok) {
      fail(writer_.error());
    }
  }
  void spend(std::size_t units);

  void value(ERL_NIF_TERM term);
  void atom(ERL_NIF_TERM term);
  void text(std::string_view utf8, bool is_key);
  void open_list(ERL_NIF_TERM term);
  void open_map(ERL_NIF_TERM term);
  void next_element(Frame& frame);
  void next_entry(Frame& frame);
  void close();
  void key(Frame& frame);
  std::optional<std::string_view> name_of(ERL_NIF_TERM term, AtomText& buffer);

  ErlNifEnv* env_;
  JsonWriter& writer_;
  std::size_t work_max_;
  std::size_t work_ = 0;
  // Whether the path ends inside the innermost frame's entry or at the frame.
  bool at_entry_ = true;
  std::size_t depth_ = 0;
  std::array<Frame, kJsonDepthMax> frames_;  // not initialized, to save time
};

TermWalk::~TermWalk() {
  while (depth_ > 0) {
    Frame& frame = frames_[--depth_];
    if (frame.is_map) {
      enif_map_iterator_destroy(env_, &frame.entries);
    }
  }
}

void TermWalk::spend(std::size_t units) {
  if (units > work_max_ - work_) {
    throw OutOfWork();
  }
  work_ += units;
}

void TermWalk::run(ERL_NIF_TERM root) {
  value(root);
  while (depth_ > 0) {
    Frame& frame = frames_[depth_ - 1];
    frame.is_map ? next_entry(frame) : next_element(frame);
  }
}

void TermWalk::value(ERL_NIF_TERM term) {
  spend(kNodeWork);
  switch (enif_term_type(env_, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
      return atom(term);
    case ERL_NIF_TERM_TYPE_BITSTRING: {
      const auto utf8 = as_binary(env_, term);
      return utf8 ? text(*utf8, false) : fail("unsupported_type");
    }
    case ERL_NIF_TERM_TYPE_INTEGER: {
      const auto integer = as_int64(env_, term);
      return integer ? written(writer_.integer(*integer)) : fail("too_large");
    }
    case ERL_NIF_TERM_TYPE_FLOAT: {
      double number = 0;
      enif_get_double(env_, term, &number);
      spend(kFloatWork);
      return written(writer_.number(number));
    }
    case ERL_NIF_TERM_TYPE_LIST:
      return open_list(term);
    case ERL_NIF_TERM_TYPE_MAP:
      return open_map(term);
    default:
      fail("unsupported_type");
  }
}

void TermWalk::atom(ERL_NIF_TERM term) {
  if (is_nil(term)) {
    return written(writer_.null());
  }
  if (const auto flag = as_bool(term)) {
    return written(writer_.boolean(*flag));
  }
  AtomText buffer;
  const auto name = name_of(term, buffer);
  return name ? text(*name, false) : fail("unsupported_type");
}

void TermWalk::text(std::string_view utf8, bool is_key) {
  // The length alone decides whether the text is read, and on which scheduler.
  const std::size_t room = writer_.room();
  if (utf8.size() > room) {
    fail("too_large");
  }
  spend(utf8.size());
  written(is_key ? writer_.key(utf8) : writer_.string(utf8));
  spend(room - writer_.room() - utf8.size());  // quotes and escapes
}

void TermWalk::open_list(ERL_NIF_TERM term) {
  written(writer_.begin_array());
  Frame& frame = frames_[depth_++];
  frame.is_map = false;
  frame.rest = term;
  frame.taken = 0;
}

void TermWalk::open_map(ERL_NIF_TERM term) {
  ERL_NIF_TERM module;
  if (enif_get_map_value(env_, term, atoms::struct_key, &module) != 0) {
    fail("unsupported_type");
  }
  written(writer_.begin_object());
  Frame& frame = frames_[depth_];
  if (enif_map_iterator_create(env_, term, &frame.entries,
                               ERL_NIF_MAP_ITERATOR_FIRST) == 0) {
    fail("unsupported_type");
  }
  ++depth_;
  frame.is_map = true;
  frame.has_key = false;
}

void TermWalk::next_element(Frame& frame) {
  ERL_NIF_TERM head;
  if (enif_get_list_cell(env_, frame.rest, &head, &frame.rest) != 0) {
    ++frame.taken;
    return value(head);
  }
  if (enif_is_empty_list(env_, frame.rest) == 0) {
    at_entry_ = false;
    fail("improper_list");
  }
  close();
}

void TermWalk::next_entry(Frame& frame) {
  ERL_NIF_TERM value_term;
  if (enif_map_iterator_get_pair(env_, &frame.entries, &frame.key,
                                 &value_term) == 0) {
    return close();
  }
  enif_map_iterator_next(env_, &frame.entries);
  key(frame);
  value(value_term);
}

void TermWalk::close() {
  Frame& frame = frames_[--depth_];
  if (frame.is_map) {
    enif_map_iterator_destroy(env_, &frame.entries);
  }
  written(writer_.end());
}

void TermWalk::key(Frame& frame) {
  // The path cannot name a key that cannot be written.
  at_entry_ = false;
  spend(kNodeWork);
  AtomText buffer;
  const auto name = name_of(frame.key, buffer);
  if (!name) {
    fail("unsupported_key");
  }
  // :a and "a" would become the same key. Rejected: looking each of them up in
  // the other kind, for maps that no caller makes.
  const ErlNifTermType type = enif_term_type(env_, frame.key);
  if (frame.has_key && type != frame.key_type) {
    fail("mixed_keys");
  }
  frame.has_key = true;
  frame.key_type = type;
  text(*name, true);
  at_entry_ = true;
}

ERL_NIF_TERM TermWalk::path() {
  ERL_NIF_TERM path = enif_make_list(env_, 0);
  for (std::size_t i = at_entry_ ? depth_ : depth_ - 1; i-- > 0;) {
    const Frame& frame = frames_[i];
    ERL_NIF_TERM step;
    if (frame.is_map) {
      AtomText buffer;
      step = make_binary(env_, cut(name_of(frame.key, buffer).value_or("")));
    } else {
      step = enif_make_uint64(env_, frame.taken - 1);
    }
    path = enif_make_list_cell(env_, step, path);
  }
  return path;
}

// The text of a binary, or of an atom in ASCII; nullopt: any other term.
std::optional<std::string_view> TermWalk::name_of(ERL_NIF_TERM term,
                                                  AtomText& buffer) {
  if (const auto utf8 = as_binary(env_, term)) {
    return utf8;
  }
  const int size =
      enif_get_atom(env_, term, buffer.data(),
                    static_cast<unsigned>(buffer.size()), ERL_NIF_LATIN1);
  const std::string_view name(
      buffer.data(), size > 0 ? static_cast<std::size_t>(size) - 1 : 0);
  return size > 0 && std::ranges::all_of(name, is_ascii) ? std::optional(name)
                                                         : std::nullopt;
}

// Throws OutOfWork if it takes more than `work_max`.
ERL_NIF_TERM encode(ErlNifEnv* env, ERL_NIF_TERM term, std::size_t work_max) {
  JsonWriter writer;
  TermWalk walk(env, writer, work_max);
  struct Consume {
    ErlNifEnv* env;
    const TermWalk& walk;
    ~Consume() { consume_us(env, walk.work() / kWorkPerUs); }
  } const consume{env, walk};
  try {
    walk.run(term);
    return make_ok(env, make_binary(env, writer.text()));
  } catch (const Fault& fault) {
    return make_error(env, fault.reason, walk.path());
  }
}

WEBHOOKS_NIF(encode_dirty) {
  return guard(env, [&] {
    return encode(env, argv[0], std::numeric_limits<std::size_t>::max());
  });
}

}  // namespace

WEBHOOKS_NIF(nif_encode) {
  return guard(env, [&] {
    try {
      return encode(env, argv[0], kNormalWorkMax);
    } catch (const OutOfWork&) {
      // Starting over wastes less than it would take to keep a half-walked term
      // alive over two calls.
      return enif_schedule_nif(env, "encode", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               encode_dirty, argc, argv);
    }
  });
}

}  // namespace webhooks::nif
