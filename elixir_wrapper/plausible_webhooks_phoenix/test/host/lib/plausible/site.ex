defmodule Plausible.Site do
  @moduledoc false
  use Ecto.Schema

  schema "sites" do
    field :domain, :string
    field :timezone, :string, default: "Etc/UTC"
    field :native_stats_start_at, :naive_datetime
    field :allowed_event_props, {:array, :string}
    field :consolidated, :boolean, default: false

    belongs_to :team, Plausible.Teams.Team
    has_many :guest_memberships, Plausible.Teams.GuestMembership
    has_many :goals, Plausible.Goal
    has_many :ownerships, through: [:team, :ownerships]
    has_many :owners, through: [:team, :owners]

    timestamps()
  end
end
