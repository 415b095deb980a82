defmodule Plausible.Webhooks.Faults.Judge do
  @moduledoc false
  # What a run saw of a row, against what the row expects. No shortfall: the row holds.

  alias Plausible.Webhooks.Attempt
  alias Plausible.Webhooks.Faults.{Row, Wire}

  @body_max 16_384
  @text_max 256
  @retry_slack_s 15
  @pause_max_s 6 * 3_600

  @doc "What every run checks of the attempt that met the fault."
  @spec attempt(Row.t(), Attempt.t()) :: [String.t()]
  def attempt(row, attempt) do
    expect(row, attempt) ++ state(row, attempt) ++ texts(row, attempt) ++ retry(row, attempt)
  end

  @doc "The result as the table shows it."
  def class(%Attempt{error: nil, state: :delivered}), do: :delivered
  def class(%Attempt{error: error}), do: error

  defp expect(row, attempt) do
    check(class(attempt) in row.expect, "#{class(attempt)} instead of #{words(row.expect)}") ++
      check(
        row.status == nil or attempt.status == row.status,
        "status #{inspect(attempt.status)}"
      )
  end

  defp state(row, attempt) do
    state =
      case class(attempt) do
        :delivered -> :delivered
        :gone -> :failed
        _retried when row.retry_in_s == :any -> attempt.state
        _retried -> :parked
      end

    check(attempt.state == state, "#{attempt.state} instead of #{state}")
  end

  defp texts(row, attempt) do
    detail = attempt.detail || ""

    matches? =
      row.detail == nil or class(attempt) != hd(row.expect) or detail =~ ~r/#{row.detail}/

    check(matches?, "text #{inspect(detail)}") ++
      check(clean?(detail), "text with control characters or too long") ++
      check(detail == "" or attempt.error not in [nil, :http_status], "text beside a status") ++
      check(detail != "" or attempt.error in [nil, :http_status], "no text") ++
      check(row.body == nil or attempt.response_body == row.body, "body #{body(attempt)}") ++
      check(byte_size(attempt.response_body) <= @body_max, "body #{body(attempt)}") ++
      check(byte_size(attempt.response_headers) <= 4_096, "more headers than are kept")
  end

  defp body(attempt), do: inspect(attempt.response_body, printable_limit: 20)

  defp clean?(text),
    do: byte_size(text) <= @text_max and String.valid?(text) and not (text =~ ~r/[[:cntrl:]]/)

  defp retry(row, %Attempt{state: state} = attempt) when state in [:parked, :pending] do
    ended_at_ms = attempt.started_at_ms + div(attempt.total_us || 0, 1_000)
    in_s = (attempt.next_at_ms - ended_at_ms) / 1_000

    right? =
      case row.retry_in_s do
        :any -> in_s <= @pause_max_s + @retry_slack_s
        nil -> false
        retry_in_s -> abs(in_s - retry_in_s) <= @retry_slack_s
      end

    check(right?, "next attempt in #{round(in_s)} s")
  end

  defp retry(_row, _attempt), do: []

  @doc "What the peer saw: never more than was sent on record, and not too much."
  def peer(row, before, counts, attempts) do
    requests = Wire.count(counts, :requests) - before.requests
    bytes = Wire.count(counts, :bytes) - before.bytes

    check(requests <= attempts, "#{requests} POSTs in #{attempts} attempts") ++
      check(bytes <= row.bytes_max, "#{div(bytes, 1_024)} KiB read")
  end

  def before(counts),
    do: %{
      requests: Wire.count(counts, :requests),
      bytes: Wire.count(counts, :bytes),
      connections: Wire.count(counts, :connections),
      ended: Wire.count(counts, :ended)
    }

  def check(true, _shortfall), do: []
  def check(false, shortfall), do: [shortfall]

  defp words(classes), do: Enum.map_join(classes, "|", &to_string/1)
end
