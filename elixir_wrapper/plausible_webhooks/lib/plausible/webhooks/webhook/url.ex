defmodule Plausible.Webhooks.Webhook.URL do
  @moduledoc false
  # Judges what was typed in as a URL, in words for who typed it.

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Webhook.Words

  @type checked :: %{url: String.t(), scheme: String.t(), host: String.t(), port: 1..65_535}

  @spec check(term(), map()) :: {:ok, checked()} | {:error, String.t()}
  def check(text, policy) when is_binary(text) do
    with {:error, reason} <- Native.check_url(text, policy), do: {:error, Words.url(reason)}
  end

  def check(_no_text, _policy), do: {:error, "must be text"}
end
