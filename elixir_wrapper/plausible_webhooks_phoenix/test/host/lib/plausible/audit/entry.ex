defmodule Plausible.Audit.Entry do
  @moduledoc false
  use Ecto.Schema
  import Ecto.Changeset

  @primary_key {:id, :binary_id, autogenerate: true}
  schema "audit_entries" do
    field :name, :string
    field :entity, :string
    field :entity_id, :string
    field :meta, :map
    field :change, :map, default: %{}
    field :user_id, :integer, default: 0
    field :team_id, :integer, default: 0
    field :datetime, :naive_datetime_usec
    field :actor_type, Ecto.Enum, default: :system, values: [:system, :user]
  end

  def new(name, %{__struct__: struct, id: id}, params \\ %{}) do
    params = Map.merge(%{entity: inspect(struct), entity_id: to_string(id)}, params)

    %__MODULE__{name: name}
    |> cast(params, [:entity, :entity_id, :meta, :user_id, :team_id, :actor_type])
    |> validate_required([:name, :entity, :entity_id, :actor_type])
    |> put_change(:datetime, NaiveDateTime.utc_now())
  end

  def include_change(entry, %{} = map), do: entry |> change() |> put_change(:change, map)

  def persist!(entry), do: Plausible.Repo.insert!(entry)
end
