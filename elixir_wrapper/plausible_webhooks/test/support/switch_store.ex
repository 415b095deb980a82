defmodule Plausible.Webhooks.Test.SwitchStore do
  @moduledoc false
  # The real store behind a switch that takes it away and brings it back.
  #
  #     switch = SwitchStore.new()
  #     store: {SwitchStore, switch: switch, inner: {Plausible.Webhooks.Store.SQLite, path: path}}
  #     SwitchStore.set(switch, :away)
  #
  # Modes: `:on`; `:away` (every write and read is an error); `:raise`; `:exit` (as
  # a call to a process that is not there); `{:refuse, fun}` (a write that holds a
  # row for which `fun` is true is refused whole), `{:refuse, fun, reason}`;
  # `{:lost, [function]}` (it is done, but the answer gets lost); `{:answer, fun}`
  # (what `fun` says of a function and its arguments, `:pass` for the real store);
  # `{:starting, reason}` (it cannot be opened for that reason);
  # `{:clock, ms}` (the store's clock is that far from ours);
  # `{:only, [function], mode}`.

  alias Plausible.Webhooks.Store

  @behaviour Store

  def new do
    table = :ets.new(__MODULE__, [:public])
    :ets.insert(table, {:mode, :on})
    table
  end

  def set(switch, mode), do: :ets.insert(switch, {:mode, mode})

  @doc "How often a function was called."
  def calls(switch, function) do
    case :ets.lookup(switch, {:calls, function}) do
      [{_key, count}] -> count
      [] -> 0
    end
  end

  @doc "The arguments of a function's last call, without the handle."
  def last(switch, function), do: :ets.lookup_element(switch, {:last, function}, 2)

  @impl true
  def init(options) do
    switch = Keyword.fetch!(options, :switch)
    {module, inner} = inner(options)

    with :on <- mode(switch),
         {:ok, handle} <- module.init(inner) do
      {:ok, {switch, module, handle}}
    else
      {:error, _reason} = error -> error
      {:starting, reason} -> {:error, reason}
      _away -> {:error, :away}
    end
  end

  @impl true
  def child_spec(options) do
    {module, inner} = inner(options)
    module.child_spec(inner)
  end

  defp inner(options) do
    {module, inner} = Keyword.fetch!(options, :inner)

    {module, Keyword.merge(inner, Keyword.take(options, [:vault, :webhooks_per_site_max]))}
  end

  defp mode(switch), do: :ets.lookup_element(switch, :mode, 2)

  @impl true
  def now_ms({switch, module, handle}) do
    case mode(switch) do
      {:clock, ms} -> module.now_ms(handle) + ms
      _other -> module.now_ms(handle)
    end
  end

  functions = Store.behaviour_info(:callbacks) -- [init: 1, child_spec: 1, now_ms: 1]

  for {function, arity} <- functions do
    arguments = Macro.generate_arguments(arity - 1, __MODULE__)

    @impl true
    def unquote(function)({switch, module, handle}, unquote_splicing(arguments)) do
      :ets.update_counter(
        switch,
        {:calls, unquote(function)},
        1,
        {{:calls, unquote(function)}, 0}
      )

      :ets.insert(switch, {{:last, unquote(function)}, unquote(arguments)})

      with :pass <- judge(mode(switch), unquote(function), unquote(arguments)) do
        result = apply(module, unquote(function), [handle | unquote(arguments)])
        if lost?(mode(switch), unquote(function)), do: {:error, :connection_lost}, else: result
      end
    end
  end

  defp lost?({:lost, functions}, function), do: function in functions
  defp lost?(_mode, _function), do: false

  defp judge(:on, _function, _arguments), do: :pass
  defp judge(:away, _function, _arguments), do: {:error, :away}
  defp judge(:raise, _function, _arguments), do: raise("the store raises")
  defp judge(:exit, _function, _arguments), do: exit({:noproc, {GenServer, :call, []}})

  defp judge({:answer, fun}, function, arguments), do: fun.(function, arguments)

  defp judge({:only, functions, mode}, function, arguments) do
    if function in functions, do: judge(mode, function, arguments), else: :pass
  end

  defp judge({:refuse, fun}, function, arguments),
    do: judge({:refuse, fun, :refused}, function, arguments)

  defp judge({:refuse, fun, reason}, function, [rows | _]) when function in [:accept, :record] do
    if Enum.any?(rows, fun), do: {:error, reason}, else: :pass
  end

  defp judge({:refuse, _fun, _reason}, _function, _arguments), do: :pass
  defp judge({:lost, _functions}, _function, _arguments), do: :pass
  defp judge({:clock, _ms}, _function, _arguments), do: :pass
end
