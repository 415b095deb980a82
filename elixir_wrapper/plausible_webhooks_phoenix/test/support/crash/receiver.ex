defmodule Plausible.Webhooks.Test.Crash.Receiver do
  @moduledoc false
  # Where the deliveries go: it accounts for every request without keeping it, so that a
  # million of them fit.
  #
  # What is on the path `/hook` is answered with 200, now and then late or with 503;
  # `/bad` always with 503. Bodies carry what they are about as `"n":"..."`.
  #
  #   {{:id, webhook_id_header}, hash of the body, requests, answers of 2xx,
  #    when the first request came, and the last}
  #   {{:event, path, n}, webhook_id_header}
  #   {:conflict, text}  what must not be: see conflicts/1
  #   {:requests, count}  {:unverified, count}

  import ExUnit.Callbacks, only: [start_supervised!: 2]

  alias Plausible.Webhooks.Test.HttpReceiver

  defstruct [:url, :table]

  @type t :: %__MODULE__{}

  # One in so many is answered late, or with 503.
  @late_one_in 25
  @failed_one_in 25
  @late_ms 30..250

  @doc "Starts it for the calling test. It knows the secret of all webhooks."
  @spec start!(String.t()) :: t()
  def start!("whsec_" <> secret) do
    http = HttpReceiver.of(start_supervised!({HttpReceiver, keep: false}, id: __MODULE__))
    table = :ets.new(__MODULE__, [:public, :set, write_concurrency: true])
    :ets.insert(table, [{:requests, 0}, {:unverified, 0}])
    key = Base.decode64!(secret)
    for path <- ["/hook", "/bad"], do: HttpReceiver.script(http, path, [&answer(table, key, &1)])
    %__MODULE__{url: HttpReceiver.url(http, ""), table: table}
  end

  @spec requests(t()) :: non_neg_integer()
  def requests(receiver), do: :ets.lookup_element(receiver.table, :requests, 2)

  @doc "Did a request of that id arrive and get a 2xx?"
  @spec answered?(t(), String.t()) :: boolean()
  def answered?(receiver, id) do
    case :ets.lookup(receiver.table, {:id, id}) do
      [{_key, _hash, _requests, answers, _first, _last}] -> answers > 0
      [] -> false
    end
  end

  @doc "From the first request of an id to the last."
  @spec took_ms(t(), String.t()) :: non_neg_integer() | nil
  def took_ms(receiver, id) do
    case :ets.lookup(receiver.table, {:id, id}) do
      [{_key, _hash, _requests, _answers, first, last}] -> last - first
      [] -> nil
    end
  end

  @doc "How many answers of 2xx there were beyond the first of an id."
  @spec duplicates(t()) :: non_neg_integer()
  def duplicates(receiver) do
    more = [{{{:id, :_}, :_, :_, :"$1", :_, :_}, [{:>, :"$1", 1}], [{:-, :"$1", 1}]}]
    receiver.table |> :ets.select(more) |> Enum.sum()
  end

  @doc "What must not be: an id with two bodies, an event with two ids, no signature."
  @spec conflicts(t()) :: [String.t()]
  def conflicts(receiver) do
    unverified = :ets.lookup_element(receiver.table, :unverified, 2)
    conflicts = Enum.map(:ets.match(receiver.table, {{:conflict, :"$1"}}), &hd/1)

    if unverified > 0,
      do: ["#{unverified} requests without a signature" | conflicts],
      else: conflicts
  end

  # --- accounting

  defp answer(table, key, %{path: path, headers: %{"webhook-id" => id} = headers, body: body}) do
    :ets.update_counter(table, :requests, 1)
    unless verified?(key, headers, body), do: :ets.update_counter(table, :unverified, 1)
    hash = :erlang.md5(body)
    now_ms = System.monotonic_time(:millisecond)

    unless :ets.insert_new(table, {{:id, id}, hash, 1, 0, now_ms, now_ms}) do
      :ets.update_counter(table, {:id, id}, {3, 1})
      :ets.update_element(table, {:id, id}, {6, now_ms})

      if :ets.lookup_element(table, {:id, id}, 2) != hash,
        do: conflict(table, "#{id}: two bodies")
    end

    event = {:event, path, number(body)}

    unless :ets.insert_new(table, {event, id}) do
      other = :ets.lookup_element(table, event, 2)
      if other != id, do: conflict(table, "#{inspect(event)}: #{id} and #{other}")
    end

    status = status(path)
    if status == 200, do: :ets.update_counter(table, {:id, id}, {4, 1})
    status
  end

  defp conflict(table, text), do: :ets.insert(table, {{:conflict, text}})

  defp status("/bad"), do: 503

  defp status("/hook") do
    if :rand.uniform(@late_one_in) == 1, do: Process.sleep(Enum.random(@late_ms))
    if :rand.uniform(@failed_one_in) == 1, do: 503, else: 200
  end

  # Without a look at the time: some senders' clocks are wrong on purpose.
  defp verified?(key, %{"webhook-id" => id, "webhook-timestamp" => at} = headers, body) do
    mac = :crypto.mac(:hmac, :sha256, key, [id, ?., at, ?., body])
    headers["webhook-signature"] == "v1," <> Base.encode64(mac)
  end

  defp verified?(_key, _headers, _body), do: false

  @doc "What a body is about."
  @spec number(binary()) :: String.t()
  def number(body) do
    [_before, rest] = :binary.split(body, ~s("n":"))
    [number, _after] = :binary.split(rest, ~s("))
    number
  end
end
