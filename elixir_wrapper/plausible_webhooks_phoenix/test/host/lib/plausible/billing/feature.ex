defmodule Plausible.Billing.Feature do
  @moduledoc false
  # What a plan may have or lack.

  def available(feature, %Plausible.Teams.Team{features: features}) do
    if feature in features, do: :ok, else: {:error, :upgrade_required}
  end

  def available(_feature, nil), do: {:error, :upgrade_required}
end

defmodule Plausible.Billing.Feature.Props do
  @moduledoc false
  def check_availability(team), do: Plausible.Billing.Feature.available("props", team)
end

defmodule Plausible.Billing.Feature.RevenueGoals do
  @moduledoc false
  def check_availability(team), do: Plausible.Billing.Feature.available("revenue_goals", team)
end
