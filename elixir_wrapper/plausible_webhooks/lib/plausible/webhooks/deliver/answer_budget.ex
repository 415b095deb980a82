defmodule Plausible.Webhooks.Deliver.AnswerBudget do
  @moduledoc false
  # Limits how much of the receivers' answers goes into the log. A receiver chooses its
  # answers: 20 webhooks at full rate with 16 KiB per answer would add more than a terabyte a
  # day.
  #
  # Each site has a bucket that holds one hour's share of `:answer_bytes_per_day` and is
  # refilled evenly. An answer that does not fit is left out; its attempt is recorded without
  # it. Only the engine's process calls this module.

  alias Plausible.Webhooks.Runtime.Instance

  @day_ms 86_400_000

  @doc "The attempt, without its answer if the site has no room for that."
  @spec spend(Instance.t(), site_id :: integer() | nil, map()) :: map()
  def spend(_instance, _site_id, %{response_body: "", response_headers: ""} = attempt),
    do: attempt

  def spend(%Instance{tables: %{rates: rates}} = instance, site_id, attempt) do
    per_day = instance.options.answer_bytes_per_day
    now_ms = System.monotonic_time(:millisecond)
    key = {:answers, site_id}
    size = byte_size(attempt.response_body) + byte_size(attempt.response_headers)
    left = left(:ets.lookup(rates, key), now_ms, per_day) - size

    if left >= 0 do
      :ets.insert(rates, {key, now_ms, left})
      attempt
    else
      %{attempt | response_headers: "", response_body: "", response_truncated: true}
    end
  end

  defp left([], _now_ms, per_day), do: div(per_day, 24)

  defp left([{_key, at_ms, left}], now_ms, per_day),
    do: min(left + div((now_ms - at_ms) * per_day, @day_ms), div(per_day, 24))
end
