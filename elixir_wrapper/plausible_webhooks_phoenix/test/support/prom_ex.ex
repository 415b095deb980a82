defmodule PromEx.MetricTypes.Event do
  @moduledoc false
  # What PromEx makes of a plugin's answers, as far as the plugin sees it. PromEx
  # itself would bring a web client and a dozen packages with it.
  defstruct [:group_name, :metrics]
  def build(group_name, metrics), do: %__MODULE__{group_name: group_name, metrics: metrics}
end

defmodule PromEx.MetricTypes.Polling do
  @moduledoc false
  defstruct [:group_name, :poll_rate, :measurements_mfa, :metrics]

  def build(group_name, poll_rate, measurements_mfa, metrics) do
    %__MODULE__{
      group_name: group_name,
      poll_rate: poll_rate,
      measurements_mfa: measurements_mfa,
      metrics: metrics
    }
  end
end
