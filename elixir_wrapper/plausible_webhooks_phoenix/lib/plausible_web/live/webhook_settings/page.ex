defmodule PlausibleWeb.Live.WebhookSettings.Page do
  @moduledoc false
  # A part of the settings page: its events, and what it reads in the background. It
  # works on the assigns of the one LiveView, in which each part has a place of its own
  # (`form`, `hook`, `log`, `detail`).

  alias Phoenix.LiveView.Socket

  @doc """
  An event, `"log.older"` as `"older"`, once it is known that the actor may manage the
  webhooks and that this part is shown. Params are the client's: any term.
  """
  @callback handle(event :: String.t(), params :: map(), Socket.t()) :: Socket.t()

  @doc """
  What `State.load/5` has read, `{:error, :crashed}` if that broke off. The part may not
  be shown any more, or show something else.
  """
  @callback loaded(tag :: term(), result :: {:ok, term()} | {:error, term()}, Socket.t()) ::
              Socket.t()

  @optional_callbacks handle: 3
end
