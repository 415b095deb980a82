defmodule Plausible.Webhooks.Native do
  @moduledoc false
  # The stubs of the NIF. A wrong type raises ArgumentError. A failure at run time is
  # {:error, reason}.

  alias Plausible.Webhooks.Runtime.NativeLibrary

  @compile {:autoload, false}
  @on_load :load
  @abi 1

  @doc false
  def load do
    path = NativeLibrary.path("plausible_webhooks_nif")
    NativeLibrary.loaded(__MODULE__, path, :erlang.load_nif(path, @abi))
  end

  defp missing, do: :erlang.nif_error(NativeLibrary.exception(__MODULE__))

  @doc """
  Returns the value of the `webhook-signature` header: one Standard Webhooks signature
  (`v1`, HMAC-SHA256) per key, separated by spaces, in the order of `keys`.

  `keys` are 1 to 10 times `whsec_` and base64 of 24 to 64 bytes, by convention the
  newest first. `id` has 1 to 255 visible ASCII characters and no dot. `unix_seconds`
  is not negative. `body` is the exact bytes that are sent, of any length. A dirty CPU
  scheduler signs more than 64 KiB.

  Errors: `:no_keys`, `:too_many_keys`, `:invalid_key`, `:invalid_id`,
  `:invalid_timestamp`, `:crypto`, `:stopped` (the VM is exiting).
  """
  @spec sign([String.t()], String.t(), integer(), binary()) ::
          {:ok, String.t()} | {:error, atom()}
  def sign(_keys, _id, _unix_seconds, _body), do: missing()

  @doc """
  Checks that `header` carries a signature of `body` by one of `keys`, made within
  `tolerance_s` seconds of `now`, before or after. All times are Unix seconds.

  One matching entry of the header is enough. Entries of other versions are skipped.
  The comparison takes constant time. A negative `tolerance_s` raises `ArgumentError`.

  Errors: those of `sign/4`, `:invalid_header` (no entry that could be a signature, or
  more than 4096 bytes), `:timestamp_too_old`, `:timestamp_too_new`, `:no_match`.
  """
  @spec verify([String.t()], String.t(), integer(), String.t(), binary(), integer(), integer()) ::
          :ok | {:error, atom()}
  def verify(_keys, _id, _unix_seconds, _header, _body, _now, _tolerance_s),
    do: missing()

  @doc """
  Returns a new `whsec_` secret of 32 random bytes. Errors: `:crypto`, `:stopped`.
  """
  @spec generate_secret() :: {:ok, String.t()} | {:error, atom()}
  def generate_secret, do: missing()

  @doc """
  Writes the term as JSON (RFC 8259) without white space.

      iex> Plausible.Webhooks.Native.encode(%{"day" => "2026-11-23", "n" => [1, 2.0, nil]})
      {:ok, ~S({"day":"2026-11-23","n":[1,2.0,null]})}

      iex> Plausible.Webhooks.Native.encode(%{data: %{props: [1, self()]}})
      {:error, {:unsupported_type, ["data", "props", 1]}}

  | term | JSON |
  | --- | --- |
  | `nil`, `true`, `false` | `null`, `true`, `false` |
  | any other atom, in ASCII | string |
  | integer of at most 64 bits, with its sign | number |
  | float | number, the shortest that reads back the same; whole ones keep `.0` |
  | binary | string; must be UTF-8 |
  | list | array |
  | map whose keys are all binaries or all ASCII atoms | object, in the map's own order |

  At most 8 MiB of JSON and 128 nested arrays and objects. Errors, with the path from
  the root (keys cut to 64 bytes; list indexes from 0):

    * `:unsupported_type` - a term that is not in the table, such as a struct
    * `:unsupported_key` - the path ends at the map
    * `:mixed_keys` - binaries and atoms in one map; the path ends at the map
    * `:improper_list` - the path ends at the list
    * `:invalid_utf8` - of a key: the path ends at the map
    * `:too_deep`, `:too_large` - beyond a limit, the integer's included
    * `:system_limit` - out of memory

  A small term is encoded at once, a larger one by a dirty CPU scheduler, so a normal
  scheduler is held for a fraction of a millisecond. There is one exception: the VM
  copies a sub-binary that does not begin at a byte of its binary before the NIF can
  ask for its size.
  """
  @spec encode(term()) :: {:ok, binary()} | {:error, {atom(), [String.t() | non_neg_integer()]}}
  def encode(_term), do: missing()

  @doc """
  Reads the JSON document (RFC 8259): objects become maps with binary keys, `null`
  becomes `nil`, numbers with a point or an exponent become floats.

      iex> Plausible.Webhooks.Native.decode(~S({"a":[1,2.5,null]}))
      {:ok, %{"a" => [1, 2.5, nil]}}

      iex> Plausible.Webhooks.Native.decode("[1,]")
      {:error, {:unexpected_token, 3}}

  `-0` is `0`. Of equal keys the last one wins. At most 8 MiB and 128 nested arrays and
  objects. A dirty CPU scheduler reads more than 8 KiB.

  Errors, with the offset of the byte: `:empty`, `:byte_order_mark`, `:invalid_utf8`,
  `:control_character`, `:unclosed_string` (its opening quote), `:invalid_escape` (also
  of an unpaired surrogate), `:invalid_literal`, `:invalid_number`,
  `:number_out_of_range` (an integer beyond 64 bits or a float beyond a double),
  `:unexpected_token`, `:unexpected_end`, `:trailing_content`, `:too_deep`,
  `:too_large`, `:system_limit`.
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, {atom(), non_neg_integer()}}
  def decode(_json), do: missing()

  @doc """
  Judges the URL of a webhook and normalizes it with the parser that dials it: the host
  in lower-case ASCII (international names in punycode, addresses in canonical form), no
  default port, dot segments resolved. The returned `url` passes again unchanged.
  `host_unicode` is the Unicode form of a host with `xn--` labels, otherwise `nil`.

  `policy` is a map with any of:

    * `https_only` - default `true`
    * `allow` - up to 256 entries `address:port`, `name:port` or `CIDR:port` of
      destinations that are allowed besides public ones; `*` is any port, and without a
      port it is 80 and 443; default `[]`

  An unknown key or a value of the wrong type raises `ArgumentError`.

  Errors: `:too_long` (more than 2048 bytes), `:malformed`, `:scheme`, `:https_required`,
  `:user_info`, `:fragment`, `:zone_id`, `:missing_host`, `:invalid_host`,
  `:local_name`, `:blocked_address`, `:blocked_port`, `:invalid_allow`,
  `:allows_everything` (0.0.0.0/0 and ::/0), `:too_many_entries`, `:stopped`.
  """
  @spec check_url(String.t(), map()) ::
          {:ok,
           %{
             url: String.t(),
             scheme: String.t(),
             host: String.t(),
             host_unicode: String.t() | nil,
             port: 1..65_535
           }}
          | {:error, atom()}
  def check_url(_url, _policy), do: missing()

  @doc """
  Judges the request headers that a user adds to a webhook: at most 20 and 12 KiB, names
  that are tokens of up to 128 bytes, values of 1 to 4096 visible ASCII characters with
  spaces inside.

  The error names the first refused header by its index, from 0: `:invalid_header_name`,
  `:reserved_header` (a name that the sender sets or that frames, routes or is trusted:
  `webhook-*`, `content-*`, `host`, `proxy-*`, `cookie`, `x-forwarded-*`, ...),
  `:invalid_header_value`, `:duplicate_header`, `:too_many_headers`,
  `:headers_too_large`. Case does not matter, and `_` counts as `-`.
  """
  @spec check_headers([{String.t(), String.t()}]) ::
          :ok | {:error, {atom(), non_neg_integer()}}
  def check_headers(_headers), do: missing()

  @spec engine_start(map()) :: {:ok, reference()} | {:error, atom()}
  def engine_start(_options), do: missing()

  @spec put_endpoint(reference(), map()) :: :ok | {:error, atom()}
  def put_endpoint(_engine, _endpoint), do: missing()

  @spec delete_endpoint(reference(), String.t()) :: :ok | {:error, atom()}
  def delete_endpoint(_engine, _webhook_id), do: missing()

  @spec submit(reference(), [map()]) ::
          {:ok, non_neg_integer()} | {:error, :overloaded | :stopped}
  def submit(_engine, _deliveries), do: missing()

  @spec run_once(reference(), non_neg_integer()) :: {:ok, [map()]} | {:error, atom()}
  def run_once(_engine, _max_wait_ms), do: missing()

  # What took more than 250 ms of processor time without a pause since the last call: for which
  # webhook (`nil`: for several), and how many milliseconds.
  @spec slow_slices(reference()) :: [{String.t() | nil, pos_integer()}]
  def slow_slices(_engine), do: missing()

  @spec stats(reference()) :: map()
  def stats(_engine), do: missing()

  @spec engine_stop(reference(), non_neg_integer()) :: {:ok, [String.t()]} | {:error, atom()}
  def engine_stop(_engine, _drain_ms), do: missing()
end
