defmodule PlausibleWeb.Live.WebhookSettings.Redacted do
  @moduledoc false
  # A value that the page shows and no crash report may show: a secret, or a text that may
  # hold one. LiveView keeps the items of a comprehension in the state of its process.

  @derive {Inspect, only: []}
  defstruct [:value]

  @type t :: %__MODULE__{value: term()}

  @spec wrap(term()) :: t()
  def wrap(value), do: %__MODULE__{value: value}

  @spec unwrap(t() | term()) :: term()
  def unwrap(%__MODULE__{value: value}), do: value
  def unwrap(value), do: value
end
