defmodule Plausible.Goals do
  @moduledoc false
  use Plausible.Repo

  import Ecto.Query

  alias Plausible.Goal
  alias Ecto.Multi

  @max_goals_per_site 1_000

  def get(site, id) when is_integer(id) do
    Repo.one(from g in Goal, where: g.site_id == ^site.id and g.id == ^id)
  end

  def create(site, params, opts \\ []) do
    Repo.transaction(fn ->
      case insert_goal(site, params, opts) do
        {:ok, :insert, goal} ->
          Repo.preload(goal, :site)

        {:ok, :upsert, goal} ->
          Repo.preload(goal, :site)

        {:error, cause} ->
          Repo.rollback(cause)
      end
    end)
  end

  def update(goal, params) do
    changeset = Goal.changeset(goal, params)

    Repo.transaction(fn ->
      case Repo.update(changeset) do
        {:ok, updated_goal} -> updated_goal
        {:error, changeset} -> Repo.rollback(changeset)
      end
    end)
  end

  def find_or_create(site, params, opts \\ [])

  def find_or_create(site, %{"goal_type" => "event", "event_name" => name} = params, opts)
      when is_binary(name) do
    create(site, params, do_upsert(opts))
  end

  def find_or_create(_, %{"goal_type" => "event"}, _), do: {:missing, "event_name"}

  def find_or_create(site, %{"goal_type" => "page", "page_path" => _} = params, opts) do
    create(site, params, do_upsert(opts))
  end

  def find_or_create(_, %{"goal_type" => "page"}, _), do: {:missing, "page_path"}

  def for_site(site, opts \\ []) do
    site
    |> for_site_query(opts)
    |> Repo.all()
  end

  def for_site_query(site, opts \\ []) do
    goals =
      from g in Goal,
        where: g.site_id == ^site.id,
        order_by: [desc: g.id],
        limit: ^@max_goals_per_site,
        preload: [:site]

    if Keyword.get(opts, :include_goals_with_custom_props?, true),
      do: goals,
      else: where(goals, [g], g.custom_props == ^%{})
  end

  def batch_create_event_goals(names, site, opts \\ []) do
    Enum.reduce(names, [], fn name, acc ->
      case insert_goal(site, %{event_name: name}, do_upsert(opts)) do
        {:ok, _, goal} -> acc ++ [goal]
        _ -> acc
      end
    end)
  end

  def delete(id, %Plausible.Site{id: site_id}) do
    delete(id, site_id)
  end

  def delete(id, site_id) do
    goal_query = from g in Goal, where: g.id == ^id, where: g.site_id == ^site_id

    result =
      Multi.new()
      |> Multi.one(:goal, goal_query)
      |> Multi.run(:found, fn _repo, %{goal: goal} ->
        if goal, do: {:ok, goal}, else: {:error, :not_found}
      end)
      |> Multi.delete_all(:delete_goals, goal_query)
      |> Repo.transaction()

    case result do
      {:ok, _} -> :ok
      {:error, _step, reason, _context} -> {:error, reason}
    end
  end

  def create_outbound_links(%Plausible.Site{} = site) do
    create(site, %{"event_name" => "Outbound Link: Click"}, do_upsert())
    :ok
  end

  def create_404(%Plausible.Site{} = site) do
    create(site, %{"event_name" => "404"}, do_upsert())
    :ok
  end

  def delete_outbound_links(%Plausible.Site{} = site) do
    q =
      from g in Goal,
        where: g.site_id == ^site.id,
        where: g.event_name == "Outbound Link: Click"

    Repo.delete_all(q)
    :ok
  end

  def delete_404(%Plausible.Site{} = site) do
    q =
      from g in Goal,
        where: g.site_id == ^site.id,
        where: g.event_name == "404"

    Repo.delete_all(q)
    :ok
  end

  defp insert_goal(site, params, opts) do
    params = Map.delete(params, "site_id")

    with %Goal{} = goal <- Keyword.get(opts, :upsert?, false) && existing(site, params) do
      {:ok, :upsert, goal}
    else
      _new ->
        changeset = Goal.changeset(%Goal{site_id: site.id}, params)
        with {:ok, goal} <- Repo.insert(changeset), do: {:ok, :insert, goal}
    end
  end

  defp existing(site, params) do
    name = params["event_name"] || params[:event_name]
    name && Repo.get_by(Goal, site_id: site.id, event_name: name)
  end

  defp do_upsert(opts \\ []), do: Keyword.put(opts, :upsert?, true)
end
