defmodule Plausible.ClickhouseEventV2 do
  @moduledoc false
  use Ecto.Schema
  import Ecto.Changeset

  @primary_key false
  schema "events_v2" do
    field :name, :string
    field :site_id, :integer
    field :hostname, :string
    field :pathname, :string
    field :user_id, :integer
    field :session_id, :integer
    field :timestamp, :naive_datetime

    field :"meta.key", {:array, :string}, default: []
    field :"meta.value", {:array, :string}, default: []
    field :scroll_depth, :integer, default: 255

    field :revenue_source_amount, :decimal
    field :revenue_source_currency, :string, default: ""
    field :revenue_reporting_amount, :decimal
    field :revenue_reporting_currency, :string, default: ""

    field :referrer, :string, default: ""
    field :referrer_source, :string, default: ""
    field :utm_medium, :string, default: ""
    field :utm_source, :string, default: ""
    field :utm_campaign, :string, default: ""
    field :utm_content, :string, default: ""
    field :utm_term, :string, default: ""
    field :country_code, :string, default: ""
    field :screen_size, :string, default: ""
    field :operating_system, :string, default: ""
    field :browser, :string, default: ""
  end

  @required [:name, :site_id, :hostname, :pathname, :user_id, :timestamp]
  @optional [
    :"meta.key",
    :"meta.value",
    :scroll_depth,
    :revenue_source_amount,
    :revenue_source_currency,
    :revenue_reporting_amount,
    :revenue_reporting_currency
  ]

  def new(attrs) do
    %__MODULE__{} |> cast(attrs, @required ++ @optional) |> validate_required(@required)
  end

  @session_properties [
    :session_id,
    :referrer,
    :referrer_source,
    :utm_medium,
    :utm_source,
    :utm_campaign,
    :utm_content,
    :utm_term,
    :country_code,
    :screen_size,
    :operating_system,
    :browser
  ]

  def merge_session(%__MODULE__{} = event, session) do
    Map.merge(event, Map.take(session, @session_properties))
  end
end
