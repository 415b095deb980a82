defmodule Plausible.Auth.User do
  @moduledoc false
  use Ecto.Schema

  schema "users" do
    field :email, :string
    has_many :team_memberships, Plausible.Teams.Membership
    timestamps()
  end
end

defmodule Plausible.Auth.UserSession do
  @moduledoc false
  use Ecto.Schema

  schema "user_sessions" do
    field :token, :string
    belongs_to :user, Plausible.Auth.User
    timestamps()
  end
end

defmodule Plausible.Auth do
  @moduledoc false

  def is_super_admin?(nil), do: false
  def is_super_admin?(%Plausible.Auth.User{id: id}), do: is_super_admin?(id)
  def is_super_admin?(id), do: id in Application.get_env(:plausible, :super_admin_user_ids)
end
