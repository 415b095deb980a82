defmodule Plausible.Webhooks.Punycode do
  @moduledoc """
  International host names as people read them, from the form in which they are
  dialled (RFC 3492).

      iex> Plausible.Webhooks.Punycode.readable("xn--mnchen-3ya.example")
      "münchen.example"
      iex> Plausible.Webhooks.Punycode.readable("example.com")
      nil

  What is shown to people must not lie: a name is readable only when every label is
  of letters, marks, digits and hyphens. What holds a control or format character, a
  bidirectional override, a symbol that looks like a slash or a dot, is not.
  """

  @base 36
  @t_min 1
  @t_max 26
  @skew 38
  @damp 700
  @initial_bias 72
  @initial_n 128

  @host_bytes_max 253
  @label_bytes_max 63

  @doc """
  The name with its `xn--` labels decoded; `nil` when it has none, or when one of them
  is not to be shown. At most #{@host_bytes_max} bytes, #{@label_bytes_max} a label.
  """
  @spec readable(String.t()) :: String.t() | nil
  def readable(host) when is_binary(host) and byte_size(host) <= @host_bytes_max do
    labels = String.split(host, ".")

    with true <- Enum.any?(labels, &encoded?/1),
         {:ok, labels} <- each(labels, []) do
      Enum.join(labels, ".")
    else
      _nothing_to_show -> nil
    end
  end

  def readable(host) when is_binary(host), do: nil

  defp encoded?(label), do: match?("xn--" <> _, label)

  defp each([], done), do: {:ok, Enum.reverse(done)}

  defp each(["xn--" <> encoded = label | rest], done) when byte_size(label) <= @label_bytes_max do
    with {:ok, decoded} <- decode(encoded),
         true <- shown?(decoded) do
      each(rest, [decoded | done])
    else
      _not_to_be_shown -> :error
    end
  end

  defp each(["xn--" <> _too_long | _rest], _done), do: :error

  defp each([label | rest], done) do
    if label =~ ~r/\A[a-zA-Z0-9_-]*\z/, do: each(rest, [label | done]), else: :error
  end

  # A label that needs no encoding has none: else it could pass for another.
  defp shown?(label),
    do: label =~ ~r/\A[\p{L}\p{N}][\p{L}\p{M}\p{N}-]*\z/u and not (label =~ ~r/\A[\x00-\x7f]*\z/)

  @doc """
  The text behind `xn--`, decoded.

      iex> Plausible.Webhooks.Punycode.decode("bcher-kva")
      {:ok, "bücher"}
      iex> Plausible.Webhooks.Punycode.decode("b c")
      :error
  """
  @spec decode(String.t()) :: {:ok, String.t()} | :error
  def decode(encoded) when is_binary(encoded) and byte_size(encoded) <= @label_bytes_max do
    {basic, rest} = split(encoded)

    if basic =~ ~r/\A[a-zA-Z0-9-]*\z/,
      do: deltas(rest, String.to_charlist(basic), @initial_n, 0, @initial_bias),
      else: :error
  end

  def decode(encoded) when is_binary(encoded), do: :error

  # Up to the last hyphen are the characters that need no encoding.
  defp split(encoded) do
    case :binary.matches(encoded, "-") do
      [] ->
        {"", encoded}

      matches ->
        {at, 1} = List.last(matches)
        <<basic::binary-size(at), "-", rest::binary>> = encoded
        {basic, rest}
    end
  end

  defp deltas("", characters, _n, _i, _bias), do: {:ok, List.to_string(characters)}

  defp deltas(rest, characters, n, i, bias) do
    length = length(characters) + 1

    with {:ok, delta, rest} <- integer(rest, 0, 1, @base, bias),
         n = n + div(i + delta, length),
         true <- character?(n) do
      at = rem(i + delta, length)
      bias = adapt(if(i == 0, do: div(delta, @damp), else: div(delta, 2)), length)
      deltas(rest, List.insert_at(characters, at, n), n, at + 1, bias)
    else
      _not_valid -> :error
    end
  end

  # A number of digits whose weights depend on those before: the last is small.
  defp integer(<<character, rest::binary>>, sum, weight, k, bias) do
    with {:ok, digit} <- digit(character) do
      threshold = (k - bias) |> max(@t_min) |> min(@t_max)
      sum = sum + digit * weight

      if digit < threshold,
        do: {:ok, sum, rest},
        else: integer(rest, sum, weight * (@base - threshold), k + @base, bias)
    end
  end

  defp integer("", _sum, _weight, _k, _bias), do: :error

  defp digit(character) when character in ?a..?z, do: {:ok, character - ?a}
  defp digit(character) when character in ?A..?Z, do: {:ok, character - ?A}
  defp digit(character) when character in ?0..?9, do: {:ok, character - ?0 + 26}
  defp digit(_other), do: :error

  defp character?(n), do: n in @initial_n..0xD7FF or n in 0xE000..0x10FFFF

  defp adapt(delta, length), do: adapt(delta + div(delta, length), length, 0)

  defp adapt(delta, length, k) when delta > div((@base - @t_min) * @t_max, 2),
    do: adapt(div(delta, @base - @t_min), length, k + @base)

  defp adapt(delta, _length, k), do: k + div((@base - @t_min + 1) * delta, delta + @skew)
end
