defmodule Plausible.Webhooks.Installer.Goals do
  @moduledoc false
  # A call in each function that changes goals, behind its transaction.

  import Plausible.Webhooks.Installer.Step, only: [before!: 4, unknown!: 1]

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
      places: &places/1
    }
  end

  defp places(source) do
    functions = source |> Source.functions(@required ++ @optional) |> Enum.reject(&delegates?/1)

    case @required -- Enum.map(functions, & &1.name) do
      [] -> Enum.flat_map(functions, &function(source, &1))
      [name | _] -> unknown!("no function #{name} that does the work")
    end
  end

  defp delegates?(%{name: name, body: [{name, _meta, args}]}) when is_list(args), do: true
  defp delegates?(_function), do: false

  # A call counts where it is of use: outside of the transaction, behind every write.
  defp function(source, %{name: name, node: node} = function) do
    marks = node |> without_transactions() |> marks()

    cond do
      Source.remote_calls(node, :goals_changed) == [] ->
        [place(source, function)]

      :told not in marks ->
        unknown!("#{name} calls goals_changed inside of its transaction")

      List.last(marks) != :told ->
        unknown!("#{name} calls goals_changed before it writes")

      true ->
        []
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
  defp mark(:Repo, name), do: if(name =~ ~r/^(insert|update|delete|transact)/, do: :written)
  defp mark(_module, _name), do: nil

  defp place(source, %{name: name, args: args, body: body}) do
    last = List.last(body)
    site = site(args) || unknown!("#{name} has no argument that tells the site")
    call = "Plausible.Webhooks.goals_changed(#{site})"
    before = &before!(source, last, &1, "what #{name} ends with is not on a line of its own")
    {_behind, first, _lines} = before.([])

    cond do
      # The work is done, and this is the result.
      Source.literal(last) == :ok ->
        before.([call])

      match?({:case, _meta, [_subject, _clauses]}, last) and
          Source.variable(last |> elem(2) |> hd()) != nil ->
        before.([call, ""])

      Source.variable(last) != nil ->
        unknown!("#{name} ends with a variable")

      not closed?(last) ->
        unknown!("#{name} ends with what a pipe would not take as a whole (parentheses help)")

      true ->
        {Source.last_line(last), first, ["|> tap(fn _result -> #{call} end)"]}
    end
  end

  # Whether a pipe behind the expression takes all of it. Behind
  # `Repo.transaction fn -> ... end` it would take the function only, and behind
  # `one || other` the other.
  defp closed?({operator, _meta, [_left, right]}) when operator in [:|>, :=], do: closed?(right)
  defp closed?({{:., _, _call}, _meta, []}), do: true
  defp closed?({_name, _meta, context}) when is_atom(context), do: true
  defp closed?({_form, meta, _args}), do: meta[:end] != nil or meta[:closing] != nil
  defp closed?(_node), do: false

  defp site(args) do
    names = for arg <- args, {name, _, c} when is_atom(c) <- Macro.prewalker(arg), do: name

    Enum.find_value(
      [site: "site.id", site_id: "site_id", goal: "goal.site_id"],
      fn {name, text} -> name in names && text end
    )
  end
end
