defmodule Plausible.Webhooks.Faults.Row do
  @moduledoc false
  # One kind of hostile peer, and what has to come of a delivery to it.
  #
  #   kind      its name
  #   group     :status_line, :header, ... for the reader of the table
  #   peer      what is there: see `Plausible.Webhooks.Faults.Peers`
  #   expect    :delivered, or an error class, or a list of those that will do
  #   status    the status on record; nil: not checked
  #   detail    what the attempt's text has to match
  #   body      what the kept answer has to be; nil: only bounded
  #   retry_in_s  when a failed delivery is tried again; :any: soon or late, and perhaps while
  #             the row is watched; nil: never
  #   held      the receiver asked for a pause, so the lane sends nothing meanwhile
  #   bytes_max what the peer may get rid of before the connection is closed, buffers of both
  #             kernels included
  #   prompt    the result is there long before the attempt's time is over
  #   first     the connection carries a good delivery first

  alias __MODULE__

  @retry_s 300

  @enforce_keys [:kind, :group, :peer, :expect]
  defstruct [
    :kind,
    :group,
    :peer,
    :expect,
    :status,
    :detail,
    :body,
    retry_in_s: @retry_s,
    held: false,
    bytes_max: 4 * 1_048_576,
    prompt: false,
    first: false
  ]

  @type t :: %Row{}

  @doc "The only delay of the retry schedule that every run uses."
  def retry_s, do: @retry_s

  def new(group, kind, peer, expect, options \\ []) do
    struct!(
      %Row{kind: kind, group: group, peer: peer, expect: List.wrap(expect)},
      options
    )
  end

  @doc "The rows of a list of `{kind, peer, expect}` and `{kind, peer, expect, options}`."
  def all(group, list) do
    for row <- list do
      case row do
        {kind, peer, expect} -> new(group, kind, peer, expect)
        {kind, peer, expect, options} -> new(group, kind, peer, expect, options)
      end
    end
  end
end
