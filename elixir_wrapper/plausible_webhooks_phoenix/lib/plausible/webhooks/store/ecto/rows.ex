defmodule Plausible.Webhooks.Store.Ecto.Rows do
  @moduledoc false
  # `Plausible.Webhooks.Store.Columns` with the types of PostgreSQL.

  alias Plausible.Webhooks.{Attempt, Delivery, Store, Vault, Webhook}
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{SQL, Text}

  @delivery Enum.zip(
              Columns.delivery(),
              ~w(text text bigint text bigint smallint text integer integer bigint bigint bigint
                 text integer text boolean boolean)
            )
  @delivery_and_body @delivery ++ [{"body", "bytea"}]

  @attempt [
    {"number", "integer"}
    | Enum.zip(
        Columns.attempt(),
        ~w(smallint integer text text bigint bigint bigint bigint bigint bigint bigint text bytea
           bytea boolean bigint boolean)
      )
  ]
  @recorded [{"id", "text"}] ++
              @attempt ++
              [
                {"reason", "text"},
                {"reporter", "text"},
                {"maker", "integer"},
                {"began", "integer"}
              ]

  @webhook Enum.zip(
             Columns.webhook(),
             ~w(text bigint text text bytea boolean text[] bigint[] bigint bigint bigint text
                bigint bigint bigint bigint bigint)
           )

  @alert_state Enum.zip(
                 Columns.alert_state(),
                 ~w(text text text text bigint bigint bigint bigint bigint bigint)
               )

  @audit Enum.zip(Columns.audit(), ~w(bigint text text text bigint))

  @doc "The columns of a delivery, without its body."
  @spec delivery() :: [SQL.column()]
  def delivery, do: @delivery

  @doc "The columns of a delivery, and its body."
  @spec delivery_and_body() :: [SQL.column()]
  def delivery_and_body, do: @delivery_and_body

  @doc "The columns of an attempt, without its delivery."
  @spec attempt() :: [SQL.column()]
  def attempt, do: @attempt

  @doc "The columns of an attempt that an engine reports; see `Columns.from_attempt/1`."
  @spec recorded() :: [SQL.column()]
  def recorded, do: @recorded

  @spec webhook() :: [SQL.column()]
  def webhook, do: @webhook

  @spec alert_state() :: [SQL.column()]
  def alert_state, do: @alert_state

  @doc "The values of `delivery_and_body/0`."
  @spec from_delivery(Delivery.t()) :: [term()]
  def from_delivery(delivery),
    do: delivery |> Columns.from_delivery(nil) |> encode(@delivery_and_body)

  @doc "The delivery of a row of `delivery/0`; further values are ignored."
  @spec to_delivery([term()]) :: Delivery.t()
  def to_delivery(row), do: row |> decode(@delivery) |> Columns.to_delivery()

  @doc "The delivery of a row whose last value is the body."
  @spec to_delivery_with_body([term()]) :: Delivery.t()
  def to_delivery_with_body(row), do: %{to_delivery(row) | body: List.last(row)}

  @doc "The values of `recorded/0`."
  @spec from_attempt(Attempt.t()) :: [term()]
  def from_attempt(attempt), do: attempt |> Columns.from_attempt() |> encode(@recorded)

  @doc "The attempt of a row of the webhook's id and `attempt/0`."
  @spec to_attempt([term()], String.t()) :: Attempt.t()
  def to_attempt(row, delivery_id),
    do: row |> decode([{"webhook_id", "text"} | @attempt]) |> Columns.to_attempt(delivery_id)

  @doc "The values of `webhook/0`."
  @spec from_webhook(Webhook.t(), Vault.t()) :: [term()]
  def from_webhook(webhook, vault), do: webhook |> Columns.from_webhook(vault) |> encode(@webhook)

  @doc "The webhooks of rows of `webhook/0`, or the first error."
  @spec to_webhooks([[term()]], Vault.t()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def to_webhooks(rows, vault),
    do: rows |> Enum.map(&decode(&1, @webhook)) |> Columns.to_webhooks(vault)

  @doc "The values of `alert_state/0`."
  @spec from_alert_state(Store.alert_state()) :: [term()]
  def from_alert_state(state), do: state |> Columns.from_alert_state() |> encode(@alert_state)

  @doc "The alert state of a row of `alert_state/0`."
  @spec to_alert_state([term()]) :: Store.alert_state()
  def to_alert_state(row), do: row |> decode(@alert_state) |> Columns.to_alert_state()

  @spec audit() :: [SQL.column()]
  def audit, do: @audit

  @doc "The values of `audit/0`."
  @spec from_audit(Store.audit()) :: [term()]
  def from_audit(entry), do: entry |> Columns.from_audit() |> encode(@audit)

  @doc "The entry of a row of `audit/0`."
  @spec to_audit([term()]) :: Store.audit()
  def to_audit(row), do: row |> decode(@audit) |> Columns.to_audit()

  # Raises for a value of another type; see `Database.encode/2`. The driver checks numbers.
  defp encode(values, columns), do: Enum.zip_with(values, columns, &to_value(&1, elem(&2, 1)))

  defp to_value(value, "text"), do: Text.encode(value)
  defp to_value(values, "text[]"), do: Enum.map(values, &Text.encode/1)
  defp to_value(value, "bytea") when is_binary(value), do: value
  defp to_value(value, type) when type != "bytea", do: value

  # Stops at the end of the columns.
  defp decode(row, columns), do: Enum.zip_with(row, columns, &from_value(&1, elem(&2, 1)))

  defp from_value(value, "text"), do: Text.decode(value)
  defp from_value(values, "text[]"), do: Enum.map(values, &Text.decode/1)
  defp from_value(value, _type), do: value
end
