defmodule Plausible.Webhooks.Native do
  @moduledoc false
  # Stubs of the NIF, nothing else. A wrong type raises ArgumentError; what goes
  # wrong at run time is {:error, reason}.

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
  The value of the `webhook-signature` header: one Standard Webhooks signature per
  key, separated by spaces, in the order of `keys`.

  `keys` are 1 to 10 of `whsec_` and base64 of 24 to 64 bytes (`v1`, HMAC-SHA256)
  or `whsk_` and base64 of seed and public key (`v1a`, Ed25519); newest first by
  convention. `id` has 1 to 255 visible ASCII characters and no dot; `unix_seconds`
  is not negative; `body` is the exact bytes that are sent, of any length (more
  than 64 KiB are signed on a dirty CPU scheduler).

  Errors: `:no_keys`, `:too_many_keys`, `:invalid_key`, `:invalid_id`,
  `:invalid_timestamp`, `:crypto`, `:stopped` (the VM is exiting).
  """
  @spec sign([String.t()], String.t(), integer(), binary()) ::
          {:ok, String.t()} | {:error, atom()}
  def sign(_keys, _id, _unix_seconds, _body), do: missing()

  @doc """
  Whether `header` carries a signature of `body` by one of `keys`, made within
  `tolerance_s` seconds of `now`, before or after. All times are Unix seconds.

  `keys` are 1 to 10 of `whsec_...` and `whpk_...` (32 bytes, Ed25519). Any entry of
  the header will do; entries of unknown versions are passed over. Comparison takes
  constant time. A negative `tolerance_s` raises `ArgumentError`.

  Errors: those of `sign/4`, `:invalid_header` (no entry that could be a
  signature, or more than 4096 bytes), `:timestamp_too_old`, `:timestamp_too_new`,
  `:no_match`.
  """
  @spec verify([String.t()], String.t(), integer(), String.t(), binary(), integer(), integer()) ::
          :ok | {:error, atom()}
  def verify(_keys, _id, _unix_seconds, _header, _body, _now, _tolerance_s),
    do: missing()

  @doc """
  A new `whsec_` secret of 32 random bytes. Errors: `:crypto`, `:stopped`.
  """
  @spec generate_secret() :: {:ok, String.t()} | {:error, atom()}
  def generate_secret, do: missing()

  @doc """
  A new Ed25519 pair, `{"whsk_..." to sign, "whpk_..." to verify}`. Errors: `:crypto`,
  `:stopped`.
  """
  @spec generate_keypair() :: {:ok, {String.t(), String.t()}} | {:error, atom()}
  def generate_keypair, do: missing()

  @doc """
  The term as JSON (RFC 8259), without white space of its own.

      iex> Plausible.Webhooks.Native.encode(%{"day" => ~D[2026-11-23], "n" => [1, 2.0, nil]})
      {:ok, ~S({"day":"2026-11-23","n":[1,2.0,null]})}

      iex> Plausible.Webhooks.Native.encode(%{data: %{props: [1, self()]}})
      {:error, {:unsupported_type, ["data", "props", 1]}}

  | term | JSON |
  | --- | --- |
  | `nil`, `true`, `false` | `null`, `true`, `false` |
  | any other atom | string |
  | integer, magnitude below 2^4096 | number, exact |
  | float | number, the shortest that reads back the same; whole ones keep `.0` |
  | binary | string; must be UTF-8 |
  | list | array |
  | map with binary, atom or integer keys | object, in the map's own order |
  | `{:json, binary}` | the bytes themselves, if `decode/1` takes them |
  | `Date`, `Time`, `NaiveDateTime`, `DateTime` | string, as `to_iso8601/1` gives it |
  | `Decimal` | string, as `Decimal.to_string/1` gives it; exponent within 10^15 |

  At most 8 MiB of JSON and 128 arrays and objects inside each other, fragments
  counted. Errors, with the path from the root (keys as they are in the JSON, cut to
  64 bytes; list indexes from 0):

    * `:unsupported_type` - tuple, pid, reference, function, port, bitstring
    * `:unsupported_key` - a key of another type; the path ends at its map
    * `:duplicate_key` - keys that come out alike, such as `:a` and `"a"`
    * `:improper_list` - the path ends at the list
    * `:invalid_utf8` - of a key: the path ends at its map
    * `:invalid_json` - a fragment
    * `:unknown_struct` - one that is not in the table
    * `:invalid_struct` - one that is, with fields that cannot be
    * `:unsupported_calendar` - other than `Calendar.ISO`
    * `:not_finite` - a `Decimal` that is NaN or infinite
    * `:too_deep`, `:too_large` - beyond a limit, the integer's included
    * `:system_limit` - out of memory

  Small terms are done at once, larger ones by a dirty CPU scheduler: a normal one
  is held for a fraction of a millisecond. One thing is beyond that: a sub-binary of
  more than some 100 KB that does not begin at a byte of the binary it is part of is
  copied by the VM before its size can be asked.
  """
  @spec encode(term()) :: {:ok, binary()} | {:error, {atom(), [String.t() | non_neg_integer()]}}
  def encode(_term), do: missing()

  @doc """
  The JSON document (RFC 8259) as a term: objects are maps with binary keys, `null`
  is `nil`, numbers with a point or an exponent are floats.

      iex> Plausible.Webhooks.Native.decode(~S({"a":[1,2.5,null]}))
      {:ok, %{"a" => [1, 2.5, nil]}}

      iex> Plausible.Webhooks.Native.decode("[1,]")
      {:error, {:unexpected_token, 3}}

  Integers are exact below 2^4096; `-0` is `0`. A float too small for a double is
  `0.0`. Of equal keys the last one wins. At most 8 MiB and 128 arrays and objects
  inside each other. More than 8 KiB are read by a dirty CPU scheduler.

  Errors, with the offset of the byte where it shows: `:empty`, `:byte_order_mark`,
  `:invalid_utf8`, `:control_character`, `:unclosed_string` (its opening quote),
  `:invalid_escape` (lone surrogates too), `:invalid_literal`, `:invalid_number`,
  `:number_too_large` (beyond a double, or beyond 2^4096), `:unexpected_token`,
  `:unexpected_end`, `:trailing_content`, `:too_deep`, `:too_large`, `:system_limit`.
  Anything but a binary raises `ArgumentError`.
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, {atom(), non_neg_integer()}}
  def decode(_json), do: missing()

  @doc """
  Judges the URL of a webhook, and normalizes it with the parser that will dial it:
  host in lower-case ASCII (international names in punycode, addresses canonical),
  no default port, dot segments resolved. Checking the `url` it returns gives the
  same again.

  `policy` is a map with any of:

    * `https_only` - default `true`
    * `allow_private` - let in loopback, private (RFC 1918, fc00::/7) and shared
      (100.64.0.0/10) addresses and local names; default `false`
    * `allow` - up to 256 CIDR blocks that are let in, whatever else says no; default `[]`
    * `ports` - up to 256 ports, the only ones let in; default `[]`: all but the bad
      ports of the Fetch standard

  An unknown key or a value of the wrong type raises `ArgumentError`.

  Errors: `:too_long` (over 2048 bytes), `:malformed`, `:scheme`, `:https_required`,
  `:user_info`, `:fragment`, `:zone_id`, `:missing_host`, `:invalid_host`,
  `:local_name`, `:blocked_address`, `:blocked_port`, `:invalid_cidr`,
  `:too_many_entries`, `:stopped`.
  """
  @spec check_url(String.t(), map()) ::
          {:ok, %{url: String.t(), scheme: String.t(), host: String.t(), port: 1..65_535}}
          | {:error, atom()}
  def check_url(_url, _policy), do: missing()

  @doc """
  Judges the request headers a user adds to a webhook: at most 20, 12 KiB together,
  names that are tokens of up to 128 bytes, values of 1 to 4096 visible ASCII
  characters with spaces inside.

  The error names the first header at fault by its index, from 0:
  `:invalid_header_name`, `:reserved_header` (ours, or one that frames, routes or is
  trusted: `webhook-*`, `content-*`, `host`, `proxy-*`, `cookie`, `x-forwarded-*`, ...),
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

  @spec stats(reference()) :: map()
  def stats(_engine), do: missing()

  @spec engine_stop(reference(), non_neg_integer()) :: {:ok, [String.t()]} | {:error, atom()}
  def engine_stop(_engine, _drain_ms), do: missing()
end
