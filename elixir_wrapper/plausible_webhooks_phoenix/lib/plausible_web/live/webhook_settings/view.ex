defmodule PlausibleWeb.Live.WebhookSettings.View do
  @moduledoc false
  # One view of the settings page: its events, and what it reads in the background. All
  # views work on the assigns of the one LiveView. Each has its own key there (`form`,
  # `webhook`, `log`, `delivery`).

  alias Phoenix.LiveView.Socket

  @doc """
  An event, such as `"log.older"` as `"older"`. The actor may manage the webhooks, and the
  view is shown. The params come from the client and may be any term.
  """
  @callback handle(event :: String.t(), params :: map(), Socket.t()) :: Socket.t()

  @doc """
  The result of `Assigns.load/5`, `{:error, :crashed}` when it crashed. By now the view may
  be hidden, or show something else.
  """
  @callback loaded(tag :: term(), result :: {:ok, term()} | {:error, term()}, Socket.t()) ::
              Socket.t()

  @optional_callbacks handle: 3
end
