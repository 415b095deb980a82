defmodule Plausible.Webhooks.Local.Receiver do
  @moduledoc """
  A receiver on this machine, for development. It verifies each POST with Erlang's `:crypto`,
  which shares no code with what signs, hands it to a function, and answers what the function
  returns. `mix plausible_webhooks.listen` and `script/demo` use it.
  """

  alias Plausible.Webhooks.{Local, Native}

  @tolerance_s 300

  @typedoc "A POST; `refused` says why its signature is not valid, `nil` if it is."
  @type request :: %{
          path: String.t(),
          headers: Local.Http.headers(),
          body: binary(),
          refused: String.t() | nil
        }

  @doc """
  Starts it. Options:

    * `:secret` - the secret, or a function of the path that returns it
    * `:answer` - a function of the request: `{status, headers, text}`
    * `:port` - default: any free port
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    secret = Keyword.fetch!(options, :secret)
    answer = Keyword.fetch!(options, :answer)

    handle = fn path, headers, body ->
      secret = if is_function(secret), do: secret.(path), else: secret
      refused = refused(secret, Map.new(headers), body)
      answer.(%{path: path, headers: headers, body: body, refused: refused})
    end

    Local.Http.start_link(port: options[:port] || 0, handle: handle)
  end

  @doc "Why the signature is not valid; `nil` if it is."
  @spec refused(String.t() | nil, map(), binary()) :: String.t() | nil
  def refused("whsec_" <> key, headers, body) do
    with %{"webhook-id" => id, "webhook-timestamp" => timestamp} <- headers,
         %{"webhook-signature" => signatures} <- headers,
         {seconds, ""} <- Integer.parse(timestamp) do
      mac = :crypto.mac(:hmac, :sha256, Base.decode64!(key), [id, ?., timestamp, ?., body])
      expected = "v1," <> Base.encode64(mac)
      age_s = abs(System.system_time(:second) - seconds)

      cond do
        not Enum.any?(String.split(signatures, " "), &equal?(&1, expected)) ->
          "no signature was made with this secret"

        age_s > @tolerance_s ->
          "the timestamp is #{age_s} s off"

        true ->
          nil
      end
    else
      _missing -> "not signed"
    end
  end

  def refused(_no_secret, _headers, _body), do: "no secret"

  # :crypto.hash_equals/2 needs equal sizes. The size is not secret.
  defp equal?(a, b), do: byte_size(a) == byte_size(b) and :crypto.hash_equals(a, b)

  @doc "The secret of this user's local receiver. It is made once and stays."
  @spec kept_secret() :: String.t()
  def kept_secret do
    file = Path.join(:filename.basedir(:user_config, "plausible_webhooks"), "secret")

    with {:error, :enoent} <- File.read(file) do
      {:ok, secret} = Native.generate_secret()
      File.mkdir_p!(Path.dirname(file))
      File.touch!(file)
      File.chmod!(file, 0o600)
      File.write!(file, secret)
      {:ok, secret}
    end
    |> elem(1)
  end
end
