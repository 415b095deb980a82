defmodule Plausible.Site.TrafficChangeNotification do
  @moduledoc false
  use Ecto.Schema

  schema "spike_notifications" do
    field :recipients, {:array, :string}, default: []
    field :threshold, :integer
    field :last_sent, :naive_datetime
    field :type, Ecto.Enum, values: [:spike, :drop], default: :spike

    belongs_to :site, Plausible.Site

    timestamps()
  end

  def was_sent(notification, now), do: Ecto.Changeset.change(notification, last_sent: now)
end
