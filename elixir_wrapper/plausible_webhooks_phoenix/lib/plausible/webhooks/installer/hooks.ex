defmodule Plausible.Webhooks.Installer.Hooks do
  @moduledoc false
  # The child of Plausible's supervisor, the call for events that were kept, and the calls
  # for a spike or a drop that the notifier has found.

  import Plausible.Webhooks.Installer.Step, only: [before!: 4, behind!: 4, one!: 3, unknown!: 1]

  alias Plausible.Webhooks.Installer.{Source, Step}

  @spec steps() :: [Step.t()]
  def steps do
    [
      %Step{
        path: "lib/plausible/application.ex",
        where: "in the list of children, after Phoenix.PubSub and before the endpoint",
        lines: child_lines(),
        places: &child/1
      },
      %Step{
        path: "lib/plausible/ingestion/event.ex",
        where: "at the end of build_and_buffer, before it returns the events that it has kept",
        lines: ["Plausible.Webhooks.events_buffered(buffered)"],
        places: &events/1
      },
      %Step{
        path: "lib/workers/traffic_change_notifier.ex",
        where:
          "where a spike is notified, and the same with :drop (without sources and pages) " <>
            "where a drop is",
        lines:
          traffic_change(:spike, "notification", "current_visitors", [
            "sources: stats.sources",
            "pages: stats.pages",
            "at: now"
          ]),
        places: &traffic/1
      }
    ]
  end

  # --- the child

  defp child_lines do
    [
      "# before the endpoint: it stops after the last request, and drains",
      "if Application.get_env(:plausible, Plausible.Webhooks) do",
      "  {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}",
      "end,"
    ]
  end

  defp child(source) do
    if Source.any?(source.ast, &child?(&1, source)), do: [], else: [child_place(source)]
  end

  # A mention (`alias Plausible.Webhooks`) does not start us.
  defp child?({{:., _, [module, name]}, _, args}, source) when is_list(args) do
    (name == :child_spec and Source.module?(source, module, [:Plausible, :Webhooks])) or
      (name == :options and
         Source.module?(source, module, [:Plausible, :Webhooks, :Host, :Plausible]))
  end

  defp child?(node, source) do
    with {module, _options} <- Source.pair(node),
         do: Source.module?(source, module, [:Plausible, :Webhooks])
  end

  defp child_place(source) do
    {pubsub, rest} =
      for({:__block__, _, [list]} when is_list(list) <- Macro.prewalker(source.ast), do: list)
      |> Enum.flat_map(fn list ->
        case Enum.split_while(list, &(!pubsub?(&1))) do
          {_before, [pubsub | rest]} -> [{pubsub, rest}]
          {_all, []} -> []
        end
      end)
      |> one!("no child {Phoenix.PubSub, ...}", "more than one child {Phoenix.PubSub, ...}")

    unless Enum.any?(rest, &endpoint?/1),
      do: unknown!("the endpoint is not behind Phoenix.PubSub")

    alone = "Phoenix.PubSub is not on a line of its own"
    place = behind!(source, pubsub, child_lines(), alone)
    unless Source.first_line(hd(rest)) > Source.last_line(pubsub), do: unknown!(alone)

    # Ours is nil where webhooks are switched off.
    if Source.remote_calls(source.ast, :reject) == [],
      do: unknown!("children that are nil are not taken out"),
      else: place
  end

  defp pubsub?(node) do
    with {module, _options} <- Source.pair(node),
         do: match?({:__aliases__, _meta, [:Phoenix, :PubSub]}, module)
  end

  defp endpoint?(node) do
    Source.any?(node, fn
      {:__aliases__, _meta, parts} -> List.last(parts) == :Endpoint
      other -> Source.variable(other) == :endpoint
    end)
  end

  # --- events that were kept

  defp events(source) do
    if Source.remote_calls(source.ast, :events_buffered) == [] do
      returns =
        for function <- Source.functions(source, [:build_and_buffer]),
            returned = returned(function.body),
            do: returned

      why = "build_and_buffer does not return {:ok, %{buffered: variable, ...}}"
      {node, name} = one!(returns, why, why)
      call = "Plausible.Webhooks.events_buffered(#{name})"
      [before!(source, node, [call], "what build_and_buffer returns is not on a line of its own")]
    else
      []
    end
  end

  defp returned(body) do
    with {ok, {:%{}, _meta, pairs}} <- body |> List.last() |> Source.pair(),
         :ok <- Source.literal(ok),
         name when name != nil <- pairs |> Source.value(:buffered) |> Source.variable() do
      {List.last(body), name}
    else
      _other -> nil
    end
  end

  # --- the notifier

  defp traffic(source) do
    there =
      for [kind | _] <- Source.remote_calls(source.ast, :traffic_change), do: Source.literal(kind)

    Enum.map([:spike, :drop] -- there, &breach(source, &1))
  end

  # The `if` that compares the visitors with the threshold of a notification.
  defp breach(source, kind) do
    why = "no one place where visitors are compared with a threshold for a #{kind}"

    {node, body, visitors, notification} =
      for(
        {:if, _meta, [condition, [{_do, body} | _else]]} = node <- Macro.prewalker(source.ast),
        {visitors, notification} <- [compared(condition, kind)],
        do: {node, Source.expressions(body), visitors, notification}
      )
      |> one!(why, why)

    more = breakdown(source, body) ++ if(now?(source, node), do: ["at: now"], else: [])
    lines = traffic_change(kind, notification, visitors, more)

    before!(
      source,
      List.last(body),
      lines,
      "what notifies of a #{kind} is not on a line of its own"
    )
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

  # Sources and pages, as variables of their own or in the map `stats`.
  defp breakdown(source, body) do
    bound = Source.bound(body)

    Enum.flat_map([:sources, :pages], fn key ->
      cond do
        key in bound -> ["#{key}: #{key}"]
        :stats not in bound -> []
        Source.any?(source.ast, &(Source.literal(&1) == key)) -> ["#{key}: stats.#{key}"]
        true -> []
      end
    end)
  end

  # Whether the function around the node has an argument `now`.
  defp now?(source, node) do
    Source.any?(source.ast, fn
      {kind, _meta, [head, body]} when kind in [:def, :defp] ->
        Source.any?(body, &(&1 == node)) and Source.any?(head, &(Source.variable(&1) == :now))

      _other ->
        false
    end)
  end

  defp traffic_change(kind, notification, visitors, more) do
    pairs = ["current_visitors: #{visitors}", "threshold: #{notification}.threshold"] ++ more
    pairs = pairs |> Enum.map_join(",\n", &"  #{&1}") |> String.split("\n")

    ["Plausible.Webhooks.traffic_change(:#{kind}, #{notification}.site, %{"] ++
      pairs ++ ["})", ""]
  end
end
