defmodule PlausibleWeb.Live.WebhookSettings.Hidden do
  @moduledoc false
  # A secret, or what may hold one, that is shown and yet stands in no crash report:
  # LiveView keeps what a comprehension goes through in the state of its process.

  @derive {Inspect, only: []}
  defstruct [:value]

  @type t :: %__MODULE__{value: term()}

  @spec wrap(term()) :: t()
  def wrap(value), do: %__MODULE__{value: value}

  @spec shown(t() | term()) :: term()
  def shown(%__MODULE__{value: value}), do: value
  def shown(value), do: value
end
