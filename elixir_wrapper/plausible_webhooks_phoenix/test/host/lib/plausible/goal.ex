defmodule Plausible.Goal do
  @moduledoc false
  use Ecto.Schema
  import Ecto.Changeset

  @currencies [:EUR, :USD, :GBP]
  @fields [:event_name, :page_path, :scroll_threshold, :display_name, :currency, :custom_props]

  schema "goals" do
    field :event_name, :string
    field :page_path, :string
    field :scroll_threshold, :integer, default: -1
    field :display_name, :string
    field :currency, Ecto.Enum, values: @currencies
    field :custom_props, :map, default: %{}

    belongs_to :site, Plausible.Site

    timestamps()
  end

  def changeset(goal, attrs \\ %{}) do
    goal
    |> cast(attrs, @fields)
    |> name()
    |> validate_required([:site_id, :display_name])
  end

  defp name(changeset) do
    case Enum.map([:display_name, :page_path, :event_name], &get_field(changeset, &1)) do
      [nil, path, _event] when is_binary(path) ->
        put_change(changeset, :display_name, "Visit " <> path)

      [nil, _path, event] ->
        put_change(changeset, :display_name, event)

      _named ->
        changeset
    end
  end
end
