defmodule Plausible.Webhooks.Ingest.Directory.Rereads do
  @moduledoc false
  # The later readings of a site after a change, as `{:changed, site_id, delay_ms}` to the
  # calling process. However often a site changes, only one message per delay is scheduled. If
  # the site has changed since, the message is scheduled once more, so that there is always a
  # reading that is this much later than the last change.
  #
  # Bounded: beyond this number of sites none is noted. The periodic reading finds those.

  @noted_max 10_000

  # When the message is to be sent once more, if it is.
  @type t :: %{{integer(), pos_integer()} => integer() | nil}

  @doc false
  @spec note(t(), integer(), pos_integer(), integer()) :: t()
  def note(noted, site_id, delay_ms, now_ms) do
    key = {site_id, delay_ms}

    cond do
      is_map_key(noted, key) -> %{noted | key => now_ms + delay_ms}
      map_size(noted) < @noted_max -> send_at(noted, key, now_ms + delay_ms)
      true -> noted
    end
  end

  @doc false
  # The message has come.
  @spec due(t(), integer(), pos_integer(), integer()) :: t()
  def due(noted, site_id, delay_ms, now_ms) do
    key = {site_id, delay_ms}

    case Map.pop(noted, key) do
      {nil, noted} -> noted
      {once_more_ms, noted} -> send_at(noted, key, max(once_more_ms, now_ms + 1))
    end
  end

  defp send_at(noted, {site_id, delay_ms} = key, at_ms) do
    Process.send_after(self(), {:changed, site_id, delay_ms}, at_ms, abs: true)
    Map.put(noted, key, nil)
  end
end
