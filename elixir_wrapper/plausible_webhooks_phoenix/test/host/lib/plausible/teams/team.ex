defmodule Plausible.Teams.Team do
  @moduledoc false
  use Ecto.Schema

  schema "teams" do
    field :identifier, Ecto.UUID
    field :name, :string
    field :accept_traffic_until, :date
    field :locked, :boolean, default: false
    # What its plan has; Plausible finds that by way of the subscription.
    field :features, {:array, :string}, default: ["props", "revenue_goals"]

    has_many :sites, Plausible.Site
    has_many :team_memberships, Plausible.Teams.Membership
    has_many :ownerships, Plausible.Teams.Membership, where: [role: :owner]
    has_many :owners, through: [:ownerships, :user]

    timestamps()
  end
end
