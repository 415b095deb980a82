defmodule Plausible.Teams.Memberships do
  @moduledoc false
  import Ecto.Query

  alias Plausible.Repo
  alias Plausible.Teams.{GuestMembership, Membership}

  def site_role(_site, nil), do: {:error, :not_a_member}

  def site_role(site, user) do
    membership = Repo.get_by(Membership, team_id: site.team_id, user_id: user.id)
    role(membership, site)
  end

  defp role(nil, _site), do: {:error, :not_a_member}

  defp role(%{role: :guest} = membership, site) do
    guest =
      Repo.one(
        from g in GuestMembership,
          where: g.team_membership_id == ^membership.id and g.site_id == ^site.id
      )

    if guest, do: {:ok, {:guest_member, guest.role}}, else: {:error, :not_a_member}
  end

  defp role(membership, _site), do: {:ok, {:team_member, membership.role}}
end
