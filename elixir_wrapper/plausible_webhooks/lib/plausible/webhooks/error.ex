defmodule Plausible.Webhooks.Error do
  @moduledoc """
  Why a function of `Plausible.Webhooks` failed: `{:error, %Plausible.Webhooks.Error{}}`.

  Match on `reason`, and show `message/1` to people.

      iex> error = %Plausible.Webhooks.Error{reason: {:invalid, %{url: "is required"}}}
      iex> Exception.message(error)
      "url is required"
  """

  @typedoc """
    * `:forbidden` - the host does not allow this actor to do this
    * `:not_found` - there is no such site, webhook or delivery
    * `{:invalid, %{field => text}}` - an attribute is not valid, and nothing was saved
    * `:limit_reached` - the site has as many webhooks as it may have
    * `:stale` - others kept changing the webhook at the same time
    * `:webhook_disabled` - the webhook has to be switched on first
    * `:invalid_overlap`, `:too_many_secrets` - see `Plausible.Webhooks.rotate_secret/5`
    * `{:rate_limited, retry_in_ms}`, `:timeout`, `{:not_sent, detail}`, `:unavailable` - see
      `Plausible.Webhooks.send_test/5`
    * `:not_running` - the instance is not running
    * `:not_supported` - the store cannot do this
    * any other term - the reason of the store or the host, for example while its database is
      away
  """
  @type reason ::
          :forbidden
          | :not_found
          | {:invalid, %{(atom() | String.t()) => String.t()}}
          | :limit_reached
          | :stale
          | :webhook_disabled
          | :invalid_overlap
          | :too_many_secrets
          | {:rate_limited, pos_integer()}
          | :timeout
          | {:not_sent, String.t()}
          | :unavailable
          | :not_running
          | :not_supported
          | term()

  @typedoc "The exception."
  @type t :: %__MODULE__{reason: reason()}

  defexception [:reason]

  @messages %{
    forbidden: "the actor may not do this",
    not_found: "no such site, webhook or delivery",
    limit_reached: "the site has as many webhooks as it may have",
    stale: "the webhook was changed by others at the same time",
    webhook_disabled: "the webhook is switched off",
    invalid_overlap: "the overlap must be 0 to 7 days",
    too_many_secrets: "the webhook has as many secrets as it may have",
    timeout: "there was no answer in time",
    unavailable: "the engine is still starting",
    not_running: "the instance is not running",
    not_supported: "this store is backed up with its database's own tools"
  }

  @impl true
  def message(%{reason: {:invalid, errors}}),
    do: Enum.map_join(errors, ", ", fn {field, text} -> "#{field} #{text}" end)

  def message(%{reason: {:rate_limited, retry_in_ms}}),
    do: "too many tests, the next one is possible in #{retry_in_ms} ms"

  def message(%{reason: {:not_sent, detail}}), do: "nothing was sent: #{detail}"

  def message(%{reason: reason}) when is_map_key(@messages, reason),
    do: Map.fetch!(@messages, reason)

  def message(%{reason: reason}), do: inspect(reason, limit: 5, printable_limit: 200)
end
