defmodule Plausible.Webhooks.Installer.Hooks do
  @moduledoc false
  # What Plausible calls: the child, and a line where events are kept, where the
  # notifier has found something, and where goals are changed.

  alias Plausible.Webhooks.Installer.{Goals, Source, Step}

  @spec steps() :: [Step.t()]
  def steps, do: [child(), events(), traffic(), Goals.step()]

  # --- lib/plausible/application.ex

  @child [
    "# before the endpoint: it stops after the last request, and drains",
    "if Application.get_env(:plausible, Plausible.Webhooks) do",
    "  {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}",
    "end,"
  ]

  defp child do
    %Step{
      path: "lib/plausible/application.ex",
      where: "in the list of children, after Phoenix.PubSub and before the endpoint",
      lines: @child,
      edit: Step.elixir(&child/1)
    }
  end

  defp child(source) do
    with :absent <- absent_child(source),
         {:ok, pubsub, rest} <- pubsub(source),
         :ok <- right_place(source, pubsub, rest) do
      at = Source.last_line(pubsub)
      lines = Source.indented(source, Source.first_line(pubsub), @child)
      {:ok, Source.insert_after(source, at, lines)}
    end
  end

  # To mention us (`alias Plausible.Webhooks`) is not to start us.
  defp absent_child(source) do
    aliases = Source.aliases(source)
    if Source.find(source.ast, &child?(&1, aliases)) == [], do: :absent, else: :done
  end

  defp child?({{:., _, [module, name]}, _, args}, aliases) when is_list(args) do
    case Source.module(module, aliases) do
      [:Plausible, :Webhooks] -> name == :child_spec
      [:Plausible, :Webhooks, :Host, :Plausible] -> name == :options
      _other -> false
    end
  end

  defp child?(node, aliases) do
    with {module, _options} <- Source.pair(node),
         do: Source.module(module, aliases) == [:Plausible, :Webhooks]
  end

  # The child that starts PubSub, and those behind it.
  defp pubsub(source) do
    found =
      for {:__block__, _, [list]} when is_list(list) <- Macro.prewalker(source.ast),
          at = Enum.find_index(list, &pubsub?/1),
          do: Enum.split(list, at)

    case found do
      [{_before, [pubsub | rest]}] -> {:ok, pubsub, rest}
      [] -> {:unknown, "no child {Phoenix.PubSub, ...}"}
      _several -> {:unknown, "more than one child {Phoenix.PubSub, ...}"}
    end
  end

  defp pubsub?(node) do
    case Source.pair(node) do
      {module, _options} -> alias?(module, [:Phoenix, :PubSub])
      nil -> false
    end
  end

  defp right_place(source, pubsub, rest) do
    cond do
      not Enum.any?(rest, &endpoint?/1) ->
        {:unknown, "the endpoint is not behind Phoenix.PubSub"}

      not (Source.alone?(source, pubsub) and Source.comma?(source, pubsub) and
               Source.first_line(hd(rest)) > Source.last_line(pubsub)) ->
        {:unknown, "Phoenix.PubSub is not on a line of its own"}

      # Ours is nil where webhooks are switched off.
      Source.remote_calls(source.ast, :reject) == [] ->
        {:unknown, "children that are nil are not taken out"}

      true ->
        :ok
    end
  end

  defp endpoint?(node) do
    Source.find(node, fn
      {:__aliases__, _meta, parts} -> List.last(parts) == :Endpoint
      other -> Source.variable(other) == :endpoint
    end) != []
  end

  # --- lib/plausible/ingestion/event.ex

  defp events do
    %Step{
      path: "lib/plausible/ingestion/event.ex",
      where: "at the end of build_and_buffer, before it returns the events that it has kept",
      lines: ["Plausible.Webhooks.events_buffered(buffered)"],
      edit: Step.elixir(&events/1)
    }
  end

  defp events(source) do
    with :absent <- absent_call(source, :events_buffered) do
      case for f <- Source.functions(source, [:build_and_buffer]), r = returned(f), do: r do
        [{node, name}] ->
          before_returned(source, node, name)

        _none_or_several ->
          {:unknown, "build_and_buffer does not return {:ok, %{buffered: variable, ...}}"}
      end
    end
  end

  defp before_returned(source, node, name) do
    line = Source.first_line(node)
    lines = ["Plausible.Webhooks.events_buffered(#{name})"]

    if Source.begins_line?(source, node),
      do: {:ok, Source.insert_before(source, line, Source.indented(source, line, lines))},
      else: {:unknown, "what build_and_buffer returns is not on a line of its own"}
  end

  defp returned(%{body: body}) do
    with {ok, {:%{}, _meta, pairs}} <- body |> List.last() |> Source.pair(),
         :ok <- Source.literal(ok),
         name when name != nil <- pairs |> Source.value(:buffered) |> Source.variable() do
      {List.last(body), name}
    else
      _other -> nil
    end
  end

  # --- lib/workers/traffic_change_notifier.ex

  defp traffic do
    %Step{
      path: "lib/workers/traffic_change_notifier.ex",
      where:
        "where a spike is notified, and the same with :drop (without sources and pages) " <>
          "where a drop is",
      lines:
        call(:spike, "notification", "current_visitors", [
          "sources: stats.sources",
          "pages: stats.pages",
          "at: now"
        ]),
      edit: Step.elixir(&traffic/1)
    }
  end

  defp traffic(source) do
    there =
      for [kind | _] <- Source.remote_calls(source.ast, :traffic_change), do: Source.literal(kind)

    case [:spike, :drop] -- there do
      [] -> :done
      kinds -> kinds |> Enum.map(&breach(source, &1)) |> notified(source)
    end
  end

  defp notified(breaches, source) do
    case Enum.find(breaches, &match?({:unknown, _why}, &1)) do
      nil -> {:ok, breaches |> Enum.sort(:desc) |> Enum.reduce(source, &notify/2)}
      unknown -> unknown
    end
  end

  defp notify({line, lines}, source),
    do: Source.insert_before(source, line, Source.indented(source, line, lines))

  # What is done when the visitors are over, or under, the threshold of a notification.
  defp breach(source, kind) do
    found =
      for {:if, _meta, [condition, [{_do, body} | _else]]} = node <- Macro.prewalker(source.ast),
          {visitors, notification} <- [compared(condition, kind)],
          do: {node, Source.expressions(body), visitors, notification}

    case found do
      [{node, body, visitors, notification}] ->
        more = named(source, body) ++ if(now?(source, node), do: ["at: now"], else: [])

        if Source.begins_line?(source, List.last(body)),
          do: {Source.first_line(List.last(body)), call(kind, notification, visitors, more)},
          else: {:unknown, "what notifies of a #{kind} is not on a line of its own"}

      _none_or_several ->
        {:unknown, "no one place where visitors are compared with a threshold for a #{kind}"}
    end
  end

  defp compared({operator, _meta, [visitors, {{:., _, [notification, :threshold]}, _, []}]}, kind) do
    with true <- operator in if(kind == :spike, do: [:>=, :>], else: [:<, :<=]),
         visitors when visitors != nil <- Source.variable(visitors),
         notification when notification != nil <- Source.variable(notification) do
      {visitors, notification}
    else
      _other -> nil
    end
  end

  defp compared(_condition, _kind), do: nil

  # Sources and pages, in the form in which they are there.
  defp named(source, body) do
    bound = for {:=, _meta, [left, _right]} <- body, name = Source.variable(left), do: name

    for key <- [:sources, :pages],
        value = in_reach(source, bound, key),
        do: "#{key}: #{value}"
  end

  defp in_reach(source, bound, key) do
    cond do
      key in bound ->
        "#{key}"

      :stats in bound and Source.find(source.ast, &(Source.literal(&1) == key)) != [] ->
        "stats.#{key}"

      true ->
        nil
    end
  end

  defp now?(source, node) do
    Source.find(source.ast, fn
      {kind, _meta, [head, body]} when kind in [:def, :defp] ->
        Source.find(body, &(&1 == node)) != [] and
          Source.find(head, &(Source.variable(&1) == :now)) != []

      _other ->
        false
    end) != []
  end

  defp call(kind, notification, visitors, more) do
    pairs = ["current_visitors: #{visitors}", "threshold: #{notification}.threshold"] ++ more
    {last, others} = List.pop_at(pairs, -1)

    ["Plausible.Webhooks.traffic_change(:#{kind}, #{notification}.site, %{"] ++
      Enum.map(others, &"  #{&1},") ++ ["  #{last}", "})", ""]
  end

  # ---

  defp absent_call(source, name),
    do: if(Source.remote_calls(source.ast, name) == [], do: :absent, else: :done)

  defp alias?({:__aliases__, _meta, parts}, parts), do: true
  defp alias?(_node, _parts), do: false
end
