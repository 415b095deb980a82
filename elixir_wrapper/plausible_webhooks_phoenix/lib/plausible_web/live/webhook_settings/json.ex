defmodule PlausibleWeb.Live.WebhookSettings.Json do
  @moduledoc false
  # Lays out JSON for reading: only white space outside strings changes, so that
  # what is shown is what was sent. What is no JSON comes back as it is.

  @bytes_max 262_144

  @spec pretty(binary()) :: binary()
  def pretty(text) when byte_size(text) > @bytes_max, do: text

  def pretty(text) do
    case Plausible.Webhooks.Native.decode(text) do
      {:ok, _value} -> text |> outside(0, []) |> Enum.reverse() |> IO.iodata_to_binary()
      {:error, _reason} -> text
    end
  end

  defp outside(<<space, rest::binary>>, depth, out) when space in ~c" \t\r\n",
    do: outside(rest, depth, out)

  defp outside(<<"\"", rest::binary>>, depth, out), do: inside(rest, depth, ["\"" | out])
  defp outside(<<"{}", rest::binary>>, depth, out), do: outside(rest, depth, ["{}" | out])
  defp outside(<<"[]", rest::binary>>, depth, out), do: outside(rest, depth, ["[]" | out])

  defp outside(<<open, rest::binary>>, depth, out) when open in ~c"{[",
    do: outside(rest, depth + 1, [line(depth + 1), open | out])

  defp outside(<<close, rest::binary>>, depth, out) when close in ~c"}]",
    do: outside(rest, depth - 1, [close, line(depth - 1) | out])

  defp outside(<<",", rest::binary>>, depth, out),
    do: outside(rest, depth, [line(depth), "," | out])

  defp outside(<<":", rest::binary>>, depth, out), do: outside(rest, depth, [": " | out])
  defp outside(<<byte, rest::binary>>, depth, out), do: outside(rest, depth, [byte | out])
  defp outside(<<>>, _depth, out), do: out

  defp inside(<<"\\", next, rest::binary>>, depth, out),
    do: inside(rest, depth, [next, "\\" | out])

  defp inside(<<"\"", rest::binary>>, depth, out), do: outside(rest, depth, ["\"" | out])
  defp inside(<<byte, rest::binary>>, depth, out), do: inside(rest, depth, [byte | out])

  defp line(depth), do: ["\n" | String.duplicate("  ", max(depth, 0))]
end
