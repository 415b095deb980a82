defmodule Demo.Receiver do
  @moduledoc """
  The receiving side: verifies every POST and records what arrived.

  `/flaky/...` answers 503 to the first two attempts of each delivery.
  """

  alias Plausible.Webhooks.Local

  @refusals 2

  @doc "Listens on a free port of 127.0.0.1, which it returns."
  def start! do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public, :bag])
    {:ok, server} = Local.Receiver.start_link(secret: &secret/1, answer: &answer/1)
    Local.Http.port(server)
  end

  @doc "Sets the secret of a path."
  def trust(path, secret), do: :ets.insert(__MODULE__, {{:secret, path}, secret})

  defp secret(path) do
    with [{_key, secret}] <- :ets.lookup(__MODULE__, {:secret, path}),
         do: secret,
         else: (_ -> nil)
  end

  @doc "The attempts of a delivery, oldest first: requests with `number` (from 0) and `status`."
  def received(delivery_id) do
    __MODULE__
    |> :ets.lookup({:received, delivery_id})
    |> Enum.map(&elem(&1, 1))
    |> Enum.sort_by(& &1.number)
  end

  defp answer(request) do
    {_name, id} = List.keyfind(request.headers, "webhook-id", 0, {nil, nil})
    before = length(received(id))
    refuse = String.starts_with?(request.path, "/flaky") and before < @refusals

    {status, text} =
      cond do
        request.refused -> {401, "signature"}
        refuse -> {503, "busy"}
        true -> {200, "ok"}
      end

    request = Map.merge(request, %{number: before, status: status})
    :ets.insert(__MODULE__, {{:received, id}, request})
    {status, [], text}
  end
end
