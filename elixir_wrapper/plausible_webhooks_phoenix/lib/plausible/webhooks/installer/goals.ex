defmodule Plausible.Webhooks.Installer.Goals do
  @moduledoc false
  # Where goals are changed: a line behind what was written, outside of its transaction.

  alias Plausible.Webhooks.Installer.{Source, Step}

  @required [:create, :update, :delete]
  @optional [
    :batch_create_event_goals,
    :delete_outbound_links,
    :delete_file_downloads,
    :delete_404,
    :delete_form_submissions
  ]

  @spec step() :: Step.t()
  def step do
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
      [] ->
        functions |> Enum.map(&place(source, &1)) |> Enum.reject(&(&1 == :done)) |> told(source)

      [name | _] ->
        {:unknown, "no function #{name} that does the work"}
    end
  end

  defp told([], _source), do: :done

  defp told(places, source) do
    case Enum.find(places, &match?({:unknown, _why}, &1)) do
      nil -> {:ok, places |> Enum.sort(:desc) |> Enum.reduce(source, &tell/2)}
      unknown -> unknown
    end
  end

  defp tell({line, {like, lines}}, source),
    do: Source.insert_after(source, line, Source.indented(source, like, lines))

  defp delegates?(%{name: name, body: [{name, _meta, args}]}) when is_list(args), do: true
  defp delegates?(_function), do: false

  # --- whether it is there already, and in a place where it is of use

  defp place(source, %{name: name, node: node} = function) do
    marks = node |> without_transactions() |> marks()

    cond do
      Source.remote_calls(node, :goals_changed) == [] ->
        telling(source, function)

      :told not in marks ->
        {:unknown, "#{name} calls goals_changed inside of its transaction"}

      List.last(marks) != :told ->
        {:unknown, "#{name} calls goals_changed before it writes"}

      true ->
        :done
    end
  end

  defp without_transactions(node) do
    Macro.prewalk(node, fn
      {{:., _, [_repo, name]} = call, meta, [_ | _]} when name in [:transaction, :transact] ->
        {call, meta, []}

      other ->
        other
    end)
  end

  # In the order of the text.
  defp marks(node) do
    for {{:., _, [{:__aliases__, _, parts}, name]}, _meta, args} when is_list(args) <-
          Macro.prewalker(node),
        mark = mark(List.last(parts), to_string(name)),
        do: mark
  end

  defp mark(:Webhooks, "goals_changed"), do: :told

  defp mark(:Repo, name),
    do: if(name =~ ~r/^(insert|update|delete|transact)/, do: :written)

  defp mark(_module, _name), do: nil

  # --- where it goes

  # {line, {line that is indented alike, lines}}: behind which line to put what.
  defp telling(source, %{name: name, args: args, body: body}) do
    last = List.last(body)
    first = Source.first_line(last)
    site = site(args)

    cond do
      site == nil ->
        {:unknown, "#{name} has no argument that tells the site"}

      not Source.begins_line?(source, last) ->
        {:unknown, "what #{name} ends with is not on a line of its own"}

      # What was to do is done, and this is what is answered.
      Source.literal(last) == :ok ->
        {first - 1, {first, ["Plausible.Webhooks.goals_changed(#{site})"]}}

      answers?(last) ->
        {first - 1, {first, ["Plausible.Webhooks.goals_changed(#{site})", ""]}}

      Source.variable(last) != nil ->
        {:unknown, "#{name} ends with a variable"}

      not closed?(last) ->
        {:unknown, "#{name} ends with what a pipe would not take as a whole (parentheses help)"}

      true ->
        pipe = "|> tap(fn _result -> Plausible.Webhooks.goals_changed(#{site}) end)"
        {Source.last_line(last), {first, [pipe]}}
    end
  end

  defp answers?({:case, _meta, [subject, _clauses]}), do: Source.variable(subject) != nil
  defp answers?(_node), do: false

  # Whether a pipe behind it takes all of it. Behind `Repo.transaction fn -> ... end` it
  # would take the function, behind `one || other` the other.
  defp closed?({operator, _meta, [_left, right]}) when operator in [:|>, :=], do: closed?(right)
  defp closed?({{:., _, _call}, _meta, []}), do: true
  defp closed?({_name, _meta, context}) when is_atom(context), do: true
  defp closed?({_form, meta, _args}), do: meta[:end] != nil or meta[:closing] != nil
  defp closed?(_node), do: false

  defp site(args) do
    names = for arg <- args, {name, _, c} when is_atom(c) <- Macro.prewalker(arg), do: name

    cond do
      :site in names -> "site.id"
      :site_id in names -> "site_id"
      :goal in names -> "goal.site_id"
      true -> nil
    end
  end
end
