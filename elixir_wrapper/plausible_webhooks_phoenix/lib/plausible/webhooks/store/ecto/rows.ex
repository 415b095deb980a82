defmodule Plausible.Webhooks.Store.Ecto.Rows do
  @moduledoc false
  # Deliveries and attempts as rows, there and back.
  #
  #   state   0 pending, 1 parked, 2 delivered, 3 failed, 4 cancelled

  alias Plausible.Webhooks.{Attempt, Delivery}
  alias Plausible.Webhooks.Store.Ecto.Text

  @states %{pending: 0, parked: 1, delivered: 2, failed: 3, cancelled: 4}
  @state_names Map.new(@states, fn {name, code} -> {code, name} end)

  # The atoms that error classes come back as. An atom is made of nothing else.
  @errors Map.new(
            ~w(http_status redirect gone dns_error dns_timeout blocked_address
               connection_refused connection_reset network_unreachable connect_timeout
               tls_error tls_timeout timeout response_too_large protocol_error cancelled
               unknown_webhook internal)a,
            &{Atom.to_string(&1), &1}
          )

  @delivery [
    {"id", "text"},
    {"webhook_id", "text"},
    {"site_id", "bigint"},
    {"type", "text"},
    {"goal_id", "bigint"},
    {"state", "smallint"},
    {"reason", "text"},
    {"attempts", "integer"},
    {"schedule_from", "integer"},
    {"created_at_ms", "bigint"},
    {"next_at_ms", "bigint"},
    {"finished_at_ms", "bigint"},
    {"owner", "text"},
    {"last_status", "integer"},
    {"last_error", "text"},
    {"manual", "boolean"},
    {"retry", "boolean"}
  ]

  @attempt [
    {"number", "integer"},
    {"state", "smallint"},
    {"status", "integer"},
    {"error", "text"},
    {"detail", "text"},
    {"started_at_ms", "bigint"},
    {"dns_us", "bigint"},
    {"connect_us", "bigint"},
    {"tls_us", "bigint"},
    {"first_byte_us", "bigint"},
    {"total_us", "bigint"},
    {"remote_ip", "text"},
    {"response_content_type", "text"},
    {"response_body", "bytea"},
    {"response_truncated", "boolean"},
    {"next_at_ms", "bigint"},
    {"gone", "boolean"}
  ]

  @spec state_code(term()) :: {:ok, 0..4} | :error
  def state_code(state), do: Map.fetch(@states, state)

  @spec state_name(0..4) :: Delivery.state()
  def state_name(code), do: Map.fetch!(@state_names, code)

  @doc "The columns of a delivery, without its body."
  @spec delivery_columns() :: [{String.t(), String.t()}]
  def delivery_columns, do: @delivery

  @doc "The columns of an attempt, without its delivery."
  @spec attempt_columns() :: [{String.t(), String.t()}]
  def attempt_columns, do: @attempt

  @doc "The values of `delivery_columns/0`, and the body."
  @spec from_delivery(Delivery.t()) :: [term()]
  def from_delivery(%Delivery{} = delivery) do
    code = Map.fetch!(@states, delivery.state)

    [
      Text.encode(delivery.id),
      Text.encode(delivery.webhook_id),
      delivery.site_id,
      Text.encode(delivery.type),
      delivery.goal_id,
      code,
      Text.encode(delivery.reason),
      delivery.attempts,
      delivery.schedule_from,
      delivery.created_at_ms,
      delivery.next_at_ms,
      if(code >= 2, do: delivery.finished_at_ms),
      if(code == 0, do: Text.encode(delivery.owner)),
      delivery.last_status,
      Text.encode(delivery.last_error),
      delivery.manual,
      delivery.retry,
      bytes(delivery.body)
    ]
  end

  # Sizes are added up before anything is sent.
  defp bytes(bytes) when is_binary(bytes), do: bytes

  @doc "A row of `delivery_columns/0`, maybe with more behind."
  @spec to_delivery([term()]) :: Delivery.t()
  def to_delivery(row) do
    [
      id,
      webhook_id,
      site_id,
      type,
      goal_id,
      state,
      reason,
      attempts,
      schedule_from,
      created_at_ms,
      next_at_ms,
      finished_at_ms,
      owner,
      last_status,
      last_error,
      manual,
      retry | _more
    ] = row

    %Delivery{
      id: Text.decode(id),
      webhook_id: Text.decode(webhook_id),
      site_id: site_id,
      type: Text.decode(type),
      goal_id: goal_id,
      state: state_name(state),
      reason: Text.decode(reason),
      attempts: attempts,
      schedule_from: schedule_from,
      created_at_ms: created_at_ms,
      next_at_ms: next_at_ms,
      finished_at_ms: finished_at_ms,
      owner: Text.decode(owner),
      last_status: last_status,
      last_error: Text.decode(last_error),
      manual: manual,
      retry: retry
    }
  end

  @doc "A row whose last column is the body."
  @spec to_delivery_with_body([term()]) :: Delivery.t()
  def to_delivery_with_body(row), do: %{to_delivery(row) | body: List.last(row)}

  @doc """
  The delivery's id, `attempt_columns/0`, the reason if the delivery ends with it, and
  whose engine reports it.
  """
  @spec from_attempt(Attempt.t()) :: [term()]
  def from_attempt(%Attempt{} = attempt) do
    error = attempt.error && Atom.to_string(attempt.error)
    reason = if attempt.number == 0, do: attempt.detail || error, else: error

    [
      Text.encode(attempt.delivery_id),
      attempt.number,
      Map.fetch!(@states, attempt.state),
      attempt.status,
      error,
      Text.encode(attempt.detail),
      attempt.started_at_ms,
      attempt.dns_us,
      attempt.connect_us,
      attempt.tls_us,
      attempt.first_byte_us,
      attempt.total_us,
      Text.encode(attempt.remote_ip),
      Text.encode(attempt.response_content_type),
      bytes(attempt.response_body),
      attempt.response_truncated,
      attempt.next_at_ms,
      attempt.gone,
      Text.encode(reason),
      Text.encode(attempt.owner)
    ]
  end

  @doc "A row of the webhook's id and `attempt_columns/0`."
  @spec to_attempt([term()], String.t()) :: Attempt.t()
  def to_attempt([webhook_id | columns], delivery_id) do
    [
      number,
      state,
      status,
      error,
      detail,
      started_at_ms,
      dns_us,
      connect_us,
      tls_us,
      first_byte_us,
      total_us,
      remote_ip,
      content_type,
      body,
      truncated,
      next_at_ms,
      gone
    ] = columns

    %Attempt{
      delivery_id: delivery_id,
      webhook_id: Text.decode(webhook_id),
      number: number,
      state: state_name(state),
      status: status,
      error: error && Map.get(@errors, error, :internal),
      detail: Text.decode(detail),
      started_at_ms: started_at_ms,
      dns_us: dns_us,
      connect_us: connect_us,
      tls_us: tls_us,
      first_byte_us: first_byte_us,
      total_us: total_us,
      remote_ip: Text.decode(remote_ip),
      response_content_type: Text.decode(content_type),
      response_body: body,
      response_truncated: truncated,
      next_at_ms: next_at_ms,
      gone: gone
    }
  end
end
