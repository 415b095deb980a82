defmodule Plausible.Webhooks.Test.Peer do
  @moduledoc false
  # The npm package standardwebhooks, an implementation that is not ours. Where it
  # cannot be had (no Node, no npm, no network) `:absent`, and one line says so.

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

  @doc "Pipes the messages, a line of JSON each, through `verify` or `sign`."
  @spec run(String.t(), [map()], Path.t()) :: {String.t(), non_neg_integer()} | :absent
  def run(verb, messages, dir) do
    file = Path.join(dir, "#{verb}.ndjson")
    File.write!(file, Enum.map(messages, &line/1))

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

  defp line(message) do
    {:ok, json} = Native.encode(message)
    [json, ?\n]
  end
end
