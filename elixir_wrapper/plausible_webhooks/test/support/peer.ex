defmodule Plausible.Webhooks.Test.Peer do
  @moduledoc false
  # Implementations that are not ours, by `test/peers/run`. Where one cannot be had (no
  # Node, no npm, no network, no Python) `:absent`, and one line says so.

  alias Plausible.Webhooks.Native

  @run Path.expand("../../../../test/peers/run", __DIR__)
  @absent 77

  @doc "A request of the HTTP receiver, as a message to verify with the secret."
  @spec message(map(), String.t()) :: map()
  def message(request, secret) do
    %{
      id: request.headers["webhook-id"],
      timestamp: String.to_integer(request.headers["webhook-timestamp"]),
      signature: request.headers["webhook-signature"],
      body_base64: Base.encode64(request.body),
      secret: secret
    }
  end

  @doc "Pipes lines through a peer: strings as they are, maps as JSON."
  @spec run(String.t(), [map() | String.t()], Path.t()) ::
          {String.t(), non_neg_integer()} | :absent
  def run(verb, lines, dir) do
    file = Path.join(dir, verb)
    File.write!(file, Enum.map(lines, &line/1))

    # Only why it did not run is for the terminal.
    said = file <> ".stderr"

    case System.cmd("sh", ["-c", ~s(exec "$0" #{verb} < "$1" 2> "$2"), @run, file, said]) do
      {_output, @absent} ->
        IO.puts(["\n", String.trim(File.read!(said))])
        :absent

      result ->
        result
    end
  end

  defp line(text) when is_binary(text), do: [text, ?\n]

  defp line(message) do
    {:ok, json} = Native.encode(message)
    [json, ?\n]
  end
end
