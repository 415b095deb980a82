defmodule PlausibleWeb.Live.WebhookSettings.Format do
  @moduledoc false
  # Times, durations, numbers and JSON, as the page shows them.

  @months ~w(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec)

  @doc "A time in the site's time zone, or in UTC when the VM does not know the zone."
  @spec time(integer() | nil, String.t()) :: String.t()
  def time(nil, _zone), do: ""

  def time(ms, zone) do
    at = ms |> DateTime.from_unix!(:millisecond) |> in_zone(zone)
    clock = at |> DateTime.to_time() |> Time.truncate(:second) |> Time.to_string()
    "#{at.day} #{Enum.at(@months, at.month - 1)} #{at.year}, #{clock} #{at.zone_abbr}"
  end

  @spec iso(integer()) :: String.t()
  def iso(ms), do: ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601()

  @doc """
  How long ago something was.

      iex> ago = &PlausibleWeb.Live.WebhookSettings.Format.ago/1
      iex> Enum.map([-5, 12_000, 150_000, 7_200_000, 200_000_000], ago)
      ["just now", "12 s ago", "2 min ago", "2 h ago", "2 d ago"]
  """
  @spec ago(integer()) :: String.t()
  def ago(ms) when ms < 5_000, do: "just now"
  def ago(ms) when ms < 60_000, do: "#{div(ms, 1_000)} s ago"
  def ago(ms) when ms < 3_600_000, do: "#{div(ms, 60_000)} min ago"
  def ago(ms) when ms < 86_400_000, do: "#{div(ms, 3_600_000)} h ago"
  def ago(ms), do: "#{div(ms, 86_400_000)} d ago"

  @doc "The zone in which times are shown."
  @spec zone(String.t()) :: String.t()
  def zone(zone), do: in_zone(DateTime.utc_now(), zone).time_zone

  defp in_zone(at, zone) do
    case DateTime.shift_zone(at, zone) do
      {:ok, shifted} -> shifted
      {:error, _unknown} -> at
    end
  end

  @doc "Parses the value of a `datetime-local` field in that zone."
  @spec from_local(term(), String.t()) :: {:ok, integer()} | :error
  def from_local(text, zone) when is_binary(text) do
    with {:ok, naive} <- naive(text), do: {:ok, naive |> placed(zone) |> to_ms()}
  end

  def from_local(_other, _zone), do: :error

  defp naive(text) do
    # Browsers leave the seconds out.
    case NaiveDateTime.from_iso8601(text) do
      {:ok, naive} ->
        {:ok, naive}

      {:error, _reason} ->
        with {:error, _reason} <- NaiveDateTime.from_iso8601(text <> ":00"), do: :error
    end
  end

  # Of an hour that comes twice the first, of one that is skipped the end.
  defp placed(naive, zone) do
    case DateTime.from_naive(naive, zone) do
      {:ok, at} -> at
      {:ambiguous, first, _second} -> first
      {:gap, _before, behind} -> behind
      {:error, _reason} -> DateTime.from_naive!(naive, "Etc/UTC")
    end
  end

  defp to_ms(at), do: DateTime.to_unix(at, :millisecond)

  @doc "The value for a `datetime-local` field."
  @spec to_local(integer(), String.t()) :: String.t()
  def to_local(ms, zone) do
    ms
    |> DateTime.from_unix!(:millisecond)
    |> in_zone(zone)
    |> DateTime.to_naive()
    |> NaiveDateTime.truncate(:second)
    |> NaiveDateTime.to_iso8601()
    |> binary_part(0, 16)
  end

  @doc """
  Microseconds.

      iex> us = &PlausibleWeb.Live.WebhookSettings.Format.us/1
      iex> Enum.map([nil, 30, 400, 12_300, 1_250_000], us)
      ["", "< 0.1 ms", "0.4 ms", "12 ms", "1.25 s"]
  """
  @spec us(non_neg_integer() | nil) :: String.t()
  def us(nil), do: ""
  def us(us) when us < 50, do: "< 0.1 ms"
  def us(us) when us < 10_000, do: "#{Float.round(us / 1_000, 1)} ms"
  def us(us) when us < 1_000_000, do: "#{div(us, 1_000)} ms"
  def us(us), do: "#{:erlang.float_to_binary(us / 1_000_000, decimals: 2)} s"

  @doc """
  The rest of a countdown.

      iex> PlausibleWeb.Live.WebhookSettings.Format.countdown(3_725_400)
      "1:02:06"
  """
  @spec countdown(integer()) :: String.t()
  def countdown(ms) do
    seconds = max(div(ms + 999, 1_000), 0)
    {hours, rest} = {div(seconds, 3_600), rem(seconds, 3_600)}
    {minutes, seconds} = {div(rest, 60), two(rem(rest, 60))}
    if hours > 0, do: "#{hours}:#{two(minutes)}:#{seconds}", else: "#{minutes}:#{seconds}"
  end

  defp two(number), do: number |> Integer.to_string() |> String.pad_leading(2, "0")

  @doc "A duration in its two largest units: `1 d 2 h`."
  @spec span(integer()) :: String.t()
  def span(ms) when ms < 60_000, do: "less than a minute"

  def span(ms) do
    minutes = div(ms, 60_000)

    parts = [
      {div(minutes, 1_440), "d"},
      {rem(div(minutes, 60), 24), "h"},
      {rem(minutes, 60), "min"}
    ]

    parts = for {number, unit} <- parts, number > 0, do: "#{number} #{unit}"
    parts |> Enum.take(2) |> Enum.join(" ")
  end

  @doc """
  A short duration, such as a delay.

      iex> Enum.map([15_000, 600_000, 14_400_000], &PlausibleWeb.Live.WebhookSettings.Format.span_s/1)
      ["15 s", "10 min", "4 h"]
  """
  @spec span_s(integer()) :: String.t()
  def span_s(ms) when ms < 60_000, do: "#{div(ms + 999, 1_000)} s"
  def span_s(ms), do: span(ms)

  @doc "A number with separators: `1,234,567`."
  @spec number(integer()) :: String.t()
  def number(number) when number < 0, do: "-" <> number(-number)

  def number(number) do
    number
    |> Integer.digits()
    |> Enum.reverse()
    |> Enum.chunk_every(3)
    |> Enum.map_join(",", &Enum.join/1)
    |> String.reverse()
  end

  @doc "A share that is never 100 % while something failed, and never 0 % while something arrived."
  @spec percent(non_neg_integer(), pos_integer()) :: String.t()
  def percent(part, whole) when part == whole, do: "100 %"
  def percent(0, _whole), do: "0 %"

  def percent(part, whole) do
    share = (part * 100 / whole) |> min(99.9) |> max(0.1)
    "#{:erlang.float_to_binary(share, decimals: 1)} %"
  end

  @spec bytes(non_neg_integer()) :: String.t()
  def bytes(count) when count < 1_024, do: "#{count} bytes"
  def bytes(count), do: "#{Float.round(count / 1_024, 1)} KiB"

  @json_bytes_max 262_144

  @doc """
  Indents JSON for reading. Only white space outside of strings changes. Text that is not
  JSON, or too long, stays as it is.
  """
  @spec json(binary()) :: binary()
  def json(text) do
    with true <- byte_size(text) <= @json_bytes_max,
         {:ok, _value} <- Plausible.Webhooks.Native.decode(text) do
      Jason.Formatter.pretty_print(text)
    else
      _no_json -> text
    end
  end
end
