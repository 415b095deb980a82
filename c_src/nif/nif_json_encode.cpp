// Purpose: the walk over a term: scalars, lists and maps into the writer, the
// way to where it failed, and the count of what it has cost.
// Ownership: terms are the calling NIF's; map iterators are ours to destroy.
// Thread: any scheduler, one at a time.
#include <charconv>

#include "nif/nif_json.hpp"
#include "webhooks/json_reader.hpp"
#include "webhooks/utf8.hpp"

namespace webhooks::nif {
namespace {

// A key in a path: enough to recognize it by, and no more of what may be any
// size.
constexpr std::size_t kPathKeyBytesMax = 64;

// Iterators of large maps own memory.
class MapEntries {
 public:
  MapEntries(ErlNifEnv* env, ERL_NIF_TERM map) noexcept
      : env_(env),
        open_(enif_map_iterator_create(env, map, &iterator_,
                                       ERL_NIF_MAP_ITERATOR_FIRST) != 0) {}
  ~MapEntries() {
    if (open_) {
      enif_map_iterator_destroy(env_, &iterator_);
    }
  }
  MapEntries(const MapEntries&) = delete;
  MapEntries& operator=(const MapEntries&) = delete;

  std::optional<ERL_NIF_TERM> next_key() noexcept {
    ERL_NIF_TERM key;
    ERL_NIF_TERM value;
    if (!open_ ||
        enif_map_iterator_get_pair(env_, &iterator_, &key, &value) == 0) {
      return std::nullopt;
    }
    enif_map_iterator_next(env_, &iterator_);
    return key;
  }

 private:
  ErlNifEnv* env_;
  ErlNifMapIterator iterator_;
  bool open_;
};

std::string_view cut(std::string_view utf8) noexcept {
  if (utf8.size() <= kPathKeyBytesMax) {
    return utf8;
  }
  const std::string_view front = utf8.substr(0, kPathKeyBytesMax);
  return front.substr(0, utf8_error_offset(front).value_or(front.size()));
}

}  // namespace

TermWalk::~TermWalk() {
  while (depth_ > 0) {
    Frame& frame = frames_[--depth_];
    if (frame.is_map) {
      enif_map_iterator_destroy(env_, &frame.entries);
    }
  }
}

bool TermWalk::fail(std::string_view reason) noexcept {
  reason_ = reason;
  return false;
}

bool TermWalk::spend(std::size_t units) noexcept {
  if (units <= work_max_ - work_) {
    work_ += units;
    return true;
  }
  out_of_work_ = true;
  return false;
}

TermWalk::Outcome TermWalk::run(ERL_NIF_TERM root) {
  bool going = value(root);
  while (going && depth_ > 0) {
    Frame& frame = frames_[depth_ - 1];
    going = frame.is_map ? next_entry(frame) : next_element(frame);
  }
  if (going) {
    return Outcome::done;
  }
  return out_of_work_ ? Outcome::out_of_work : Outcome::failed;
}

bool TermWalk::value(ERL_NIF_TERM term) {
  if (!spend(kNodeWork)) {
    return false;
  }
  switch (enif_term_type(env_, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
      return atom(term);
    case ERL_NIF_TERM_TYPE_BITSTRING:
      return binary(term);
    case ERL_NIF_TERM_TYPE_INTEGER:
      return integer(term);
    case ERL_NIF_TERM_TYPE_FLOAT: {
      double number = 0;
      enif_get_double(env_, term, &number);
      return spend(kFloatWork) && written(writer_.number(number));
    }
    case ERL_NIF_TERM_TYPE_LIST:
      return open_list(term);
    case ERL_NIF_TERM_TYPE_MAP:
      return map(term);
    case ERL_NIF_TERM_TYPE_TUPLE:
      return tuple(term);
    default:
      return fail("unsupported_type");
  }
}

bool TermWalk::atom(ERL_NIF_TERM term) {
  if (enif_is_identical(term, atoms::nil)) {
    return written(writer_.null());
  }
  if (const auto flag = as_bool(term)) {
    return written(writer_.boolean(*flag));
  }
  Text buffer;
  const auto name = atom_text(term, buffer);
  if (!name) {
    return out_of_work_ ? false : fail("unsupported_type");
  }
  return text(*name, false);
}

bool TermWalk::binary(ERL_NIF_TERM term) {
  const auto utf8 = as_binary(env_, term);
  return utf8 ? text(*utf8, false) : fail("unsupported_type");  // bits over
}

// The length alone decides whether a text is looked at, and where.
bool TermWalk::text(std::string_view utf8, bool is_key) {
  if (utf8.size() > writer_.room()) {
    return fail("too_large");
  }
  if (!spend(utf8.size())) {
    return false;
  }
  const std::size_t room = writer_.room();
  if (!written(is_key ? writer_.key(utf8) : writer_.string(utf8))) {
    return false;
  }
  // With its quotes it is longer by two to four; with escapes up to six times
  // as long, and what is written takes its time.
  return spend(room - writer_.room() - utf8.size());
}

bool TermWalk::integer(ERL_NIF_TERM term) {
  if (const auto small = as_int64(env_, term)) {
    return written(writer_.integer(*small));
  }
  Text text;
  const auto digits = integer_text(term, text);
  if (!digits) {
    return out_of_work_ ? false : fail("too_large");
  }
  return written(writer_.verbatim(*digits));
}

// Only {:json, fragment}. The fragment is read before it is let in, with what
// is left of depth and size, and by the rules of decode/1.
bool TermWalk::tuple(ERL_NIF_TERM term) {
  int arity = 0;
  const ERL_NIF_TERM* elements = nullptr;
  if (enif_get_tuple(env_, term, &arity, &elements) == 0 || arity != 2 ||
      !enif_is_identical(elements[0], json_atoms::json)) {
    return fail("unsupported_type");
  }
  const auto fragment = as_binary(env_, elements[1]);
  if (!fragment) {
    return fail("unsupported_type");
  }
  if (fragment->size() > writer_.room()) {
    return fail("too_large");
  }
  if (!spend(kParserWork + fragment->size() * kFragmentWork)) {
    return false;
  }
  const auto fault =
      check_json(*fragment, {writer_.room(), kJsonDepthMax - writer_.depth()});
  if (!fault) {
    return written(writer_.verbatim(*fragment));
  }
  const bool limit = fault->reason == "too_deep" ||
                     fault->reason == "too_large" ||
                     fault->reason == "system_limit";
  return fail(limit ? fault->reason : "invalid_json");
}

bool TermWalk::map(ERL_NIF_TERM term) {
  ERL_NIF_TERM module;
  if (enif_get_map_value(env_, term, atoms::struct_key, &module) != 0) {
    return spend(kStructWork) && structure(term, module);
  }
  return open_map(term);
}

bool TermWalk::open_list(ERL_NIF_TERM term) {
  if (!written(writer_.begin_array())) {
    return false;
  }
  Frame& frame = frames_[depth_++];
  frame.is_map = false;
  frame.term = term;
  frame.taken = 0;
  return true;
}

bool TermWalk::open_map(ERL_NIF_TERM term) {
  if (!written(writer_.begin_object())) {
    return false;
  }
  Frame& frame = frames_[depth_];
  if (enif_map_iterator_create(env_, term, &frame.entries,
                               ERL_NIF_MAP_ITERATOR_FIRST) == 0) {
    return fail("unsupported_type");
  }
  ++depth_;
  frame.is_map = true;
  frame.term = term;
  frame.key_kinds = 0;
  return true;
}

bool TermWalk::next_element(Frame& frame) {
  ERL_NIF_TERM head;
  ERL_NIF_TERM tail;
  if (enif_get_list_cell(env_, frame.term, &head, &tail) != 0) {
    frame.term = tail;
    ++frame.taken;
    return value(head);
  }
  if (enif_is_empty_list(env_, frame.term) != 0) {
    return close();
  }
  at_entry_ = false;
  return fail("improper_list");
}

bool TermWalk::next_entry(Frame& frame) {
  ERL_NIF_TERM value_term;
  if (enif_map_iterator_get_pair(env_, &frame.entries, &frame.key,
                                 &value_term) == 0) {
    // Keys of one kind cannot come out alike; only a mixed map is looked
    // through again.
    const bool mixed = (frame.key_kinds & (frame.key_kinds - 1)) != 0;
    if (mixed && !keys_differ(frame)) {
      return false;
    }
    return close();
  }
  enif_map_iterator_next(env_, &frame.entries);
  return key(frame) && value(value_term);
}

bool TermWalk::close() {
  Frame& frame = frames_[--depth_];
  if (frame.is_map) {
    enif_map_iterator_destroy(env_, &frame.entries);
  }
  return written(writer_.end());
}

bool TermWalk::key(Frame& frame) {
  at_entry_ = false;  // a key that cannot be written cannot be in the path
  if (!spend(kNodeWork)) {
    return false;
  }
  if (const auto utf8 = as_binary(env_, frame.key)) {
    frame.key_kinds |= kBinaryKey;
    at_entry_ = text(*utf8, true);
  } else {
    at_entry_ = other_key(frame);
  }
  return at_entry_;
}

bool TermWalk::other_key(Frame& frame) {
  Text buffer;
  std::optional<std::string_view> name;
  switch (enif_term_type(env_, frame.key)) {
    case ERL_NIF_TERM_TYPE_ATOM:
      frame.key_kinds |= kAtomKey;
      name = atom_text(frame.key, buffer);
      break;
    case ERL_NIF_TERM_TYPE_INTEGER:
      frame.key_kinds |= kIntegerKey;
      name = integer_text(frame.key, buffer);
      if (!name && !out_of_work_) {
        return fail("too_large");
      }
      break;
    default:
      break;
  }
  if (name) {
    return text(*name, true);
  }
  return out_of_work_ ? false : fail("unsupported_key");
}

// %{1 => _, "1" => _, :"1" => _}: the text of each key that is no binary is
// looked up in the kinds that come before it.
bool TermWalk::keys_differ(Frame& frame) {
  MapEntries entries(env_, frame.term);
  while (const auto entry = entries.next_key()) {
    if (!spend(kLookUpWork)) {
      return false;
    }
    bool twice = false;
    if (!key_is_twice(frame.term, *entry, twice)) {
      return false;
    }
    if (!twice) {
      continue;
    }
    frame.key = *entry;
    return fail("duplicate_key");
  }
  return true;
}

bool TermWalk::key_is_twice(ERL_NIF_TERM map, ERL_NIF_TERM key, bool& twice) {
  const ErlNifTermType type = enif_term_type(env_, key);
  if (type == ERL_NIF_TERM_TYPE_BITSTRING) {
    return true;
  }
  Text text;
  const auto name = type == ERL_NIF_TERM_TYPE_ATOM ? atom_text(key, text)
                                                   : integer_text(key, text);
  if (!name) {
    return false;
  }
  ERL_NIF_TERM found;
  twice = enif_get_map_value(env_, map, make_binary(env_, *name), &found) != 0;
  if (twice || type == ERL_NIF_TERM_TYPE_ATOM) {
    return true;
  }
  ERL_NIF_TERM same;
  twice = enif_make_existing_atom_len(env_, name->data(), name->size(), &same,
                                      ERL_NIF_LATIN1) != 0 &&
          enif_get_map_value(env_, map, same, &found) != 0;
  return true;
}

ERL_NIF_TERM TermWalk::path_key(ERL_NIF_TERM key) {
  Text text;
  std::optional<std::string_view> name = as_binary(env_, key);
  // It has been written before, within what there was to spend.
  work_ = 0;
  if (!name && enif_is_atom(env_, key) != 0) {
    name = atom_text(key, text);
  }
  if (!name) {
    name = integer_text(key, text);
  }
  return make_binary(env_, cut(name.value_or("")));
}

ERL_NIF_TERM TermWalk::path() {
  ERL_NIF_TERM path = enif_make_list(env_, 0);
  for (std::size_t i = depth_; i-- > 0;) {
    const Frame& frame = frames_[i];
    if (i + 1 == depth_ && !at_entry_) {
      continue;
    }
    path = enif_make_list_cell(env_,
                               frame.is_map
                                   ? path_key(frame.key)
                                   : enif_make_uint64(env_, frame.taken - 1),
                               path);
  }
  return path;
}

// Latin-1 is what every NIF version can ask for. Other atoms show their UTF-8
// in the external format: 131, tag, length (one or two bytes), text.
std::optional<std::string_view> TermWalk::atom_text(ERL_NIF_TERM atom,
                                                    Text& text) {
  std::array<char, 256> latin1;
  const int size =
      enif_get_atom(env_, atom, latin1.data(), latin1.size(), ERL_NIF_LATIN1);
  if (size > 0) {
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < static_cast<std::size_t>(size); ++i) {
      const auto letter = static_cast<std::uint8_t>(latin1[i]);
      if (letter >= 0x80) {
        text.bytes[at++] = static_cast<char>(0xC0 | (letter >> 6));
        text.bytes[at++] = static_cast<char>(0x80 | (letter & 0x3F));
      } else {
        text.bytes[at++] = latin1[i];
      }
    }
    return std::string_view(text.bytes.data(), at);
  }
  ErlNifBinary format;
  if (!spend(kForeignAtomWork) ||
      enif_term_to_binary(env_, atom, &format) == 0) {
    return std::nullopt;
  }
  const std::string_view bytes(reinterpret_cast<const char*>(format.data),
                               format.size);
  constexpr char kAtomUtf8 = 118;
  constexpr char kSmallAtomUtf8 = 119;
  if (bytes.size() > 4 && bytes[1] == kAtomUtf8) {
    text.big = bytes.substr(4);
  } else if (bytes.size() > 3 && bytes[1] == kSmallAtomUtf8) {
    text.big = bytes.substr(3);
  }
  enif_release_binary(&format);
  if (text.big.empty()) {
    return std::nullopt;
  }
  return text.big;
}

std::optional<std::string_view> TermWalk::integer_text(ERL_NIF_TERM term,
                                                       Text& text) {
  if (const auto small = as_int64(env_, term)) {
    const auto done = std::to_chars(
        text.bytes.data(), text.bytes.data() + text.bytes.size(), *small);
    return std::string_view(
        text.bytes.data(),
        static_cast<std::size_t>(done.ptr - text.bytes.data()));
  }
  if (!spend(kBigIntegerWork)) {
    return std::nullopt;
  }
  std::optional<std::string> digits = big_.text(term);
  if (!digits) {
    return std::nullopt;
  }
  // The conversion costs the square of the length.
  if (!spend(digits->size() * digits->size() / 64)) {
    return std::nullopt;
  }
  text.big = std::move(*digits);
  return text.big;
}

}  // namespace webhooks::nif
