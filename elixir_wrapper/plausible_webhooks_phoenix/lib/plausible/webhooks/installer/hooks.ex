defmodule Plausible.Webhooks.Installer.Hooks do
  @moduledoc false
  # What Plausible calls: the child, and a line where events are kept, where the
  # notifier has found something, and where goals are changed.

  alias Plausible.Webhooks.Installer.{Source, Step}

  @spec steps() :: [Step.t()]
  def steps, do: [child(), events(), traffic(), goals()]

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
    with :absent <- absent(source, fn node -> alias?(node, [:Plausible, :Webhooks]) end),
         {:ok, pubsub, rest} <- pubsub(source),
         :ok <- right_place(source, pubsub, rest) do
      at = Source.last_line(pubsub)
      lines = Source.indented(source, Source.first_line(pubsub), @child)
      {:ok, Source.insert_after(source, at, lines)}
    end
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

      not (Source.alone?(source, pubsub) and Source.comma?(source, pubsub)) ->
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
          line = Source.first_line(node)
          lines = ["Plausible.Webhooks.events_buffered(#{name})"]
          {:ok, Source.insert_before(source, line, Source.indented(source, line, lines))}

        _none_or_several ->
          {:unknown, "build_and_buffer does not return {:ok, %{buffered: variable, ...}}"}
      end
    end
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
        {Source.first_line(List.last(body)), call(kind, notification, visitors, more)}

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

  # --- lib/plausible/goals/goals.ex

  @required [:create, :update, :delete]
  @optional [
    :batch_create_event_goals,
    :delete_outbound_links,
    :delete_file_downloads,
    :delete_404,
    :delete_form_submissions
  ]

  defp goals do
    %Step{
      path: "lib/plausible/goals/goals.ex",
      where:
        "in create, update, delete, batch_create_event_goals and each delete_..., when what " <>
          "was changed is committed (by a pipe behind Repo.transaction, or as the last but one line)",
      lines: [
        "|> tap(fn _result -> Plausible.Webhooks.goals_changed(site.id) end)",
        "",
        "Plausible.Webhooks.goals_changed(site.id)"
      ],
      edit: Step.elixir(&goals/1)
    }
  end

  defp goals(source) do
    functions = source |> Source.functions(@required ++ @optional) |> Enum.reject(&delegates?/1)

    case @required -- Enum.map(functions, & &1.name) do
      [] -> functions |> Enum.reject(&tells?/1) |> Enum.map(&telling/1) |> told(source)
      [name | _] -> {:unknown, "no function #{name} that does the work"}
    end
  end

  defp told([], _source), do: :done

  defp told(places, source) do
    case Enum.find(places, &match?({:unknown, _why}, &1)) do
      nil ->
        {:ok, places |> Enum.sort(:desc) |> Enum.reduce(source, &tell/2)}

      unknown ->
        unknown
    end
  end

  defp tell({line, {like, lines}}, source),
    do: Source.insert_after(source, line, Source.indented(source, like, lines))

  defp delegates?(%{name: name, body: [{name, _meta, args}]}) when is_list(args), do: true
  defp delegates?(_function), do: false

  defp tells?(%{node: node}), do: Source.remote_calls(node, :goals_changed) != []

  # {line, {line that is indented alike, lines}}: behind which line to put what.
  defp telling(%{name: name, args: args, body: body}) do
    last = List.last(body)
    first = Source.first_line(last)
    site = site(args)

    cond do
      site == nil ->
        {:unknown, "#{name} has no argument that tells the site"}

      # What was to do is done, and this is what is answered.
      Source.literal(last) == :ok ->
        {first - 1, {first, ["Plausible.Webhooks.goals_changed(#{site})"]}}

      answers?(last) ->
        {first - 1, {first, ["Plausible.Webhooks.goals_changed(#{site})", ""]}}

      Source.variable(last) != nil ->
        {:unknown, "#{name} ends with a variable"}

      true ->
        pipe = "|> tap(fn _result -> Plausible.Webhooks.goals_changed(#{site}) end)"
        {Source.last_line(last), {first, [pipe]}}
    end
  end

  defp answers?({:case, _meta, [subject, _clauses]}), do: Source.variable(subject) != nil
  defp answers?(_node), do: false

  defp site(args) do
    names = for arg <- args, {name, _, c} when is_atom(c) <- Macro.prewalker(arg), do: name

    cond do
      :site in names -> "site.id"
      :site_id in names -> "site_id"
      :goal in names -> "goal.site_id"
      true -> nil
    end
  end

  # ---

  defp absent_call(source, name),
    do: if(Source.remote_calls(source.ast, name) == [], do: :absent, else: :done)

  defp absent(source, fun), do: if(Source.find(source.ast, fun) == [], do: :absent, else: :done)

  defp alias?({:__aliases__, _meta, parts}, parts), do: true
  defp alias?(_node, _parts), do: false
end
