defmodule Plausible.Teams.Membership do
  @moduledoc false
  use Ecto.Schema

  schema "team_memberships" do
    field :role, Ecto.Enum, values: [:guest, :viewer, :editor, :admin, :owner, :billing]

    belongs_to :user, Plausible.Auth.User
    belongs_to :team, Plausible.Teams.Team
    has_many :guest_memberships, Plausible.Teams.GuestMembership, foreign_key: :team_membership_id

    timestamps()
  end
end

defmodule Plausible.Teams.GuestMembership do
  @moduledoc false
  use Ecto.Schema

  schema "guest_memberships" do
    field :role, Ecto.Enum, values: [:viewer, :editor]

    belongs_to :team_membership, Plausible.Teams.Membership
    belongs_to :site, Plausible.Site

    timestamps()
  end
end
