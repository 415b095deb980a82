defmodule Plausible.Webhooks.Webhook.URL do
  @moduledoc false
  # Judges a URL that a user typed in, with error texts for that user.

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Webhook.Words

  @type checked :: %{
          url: String.t(),
          scheme: String.t(),
          host: String.t(),
          host_unicode: String.t() | nil,
          port: 1..65_535
        }

  @spec check(term(), map()) :: {:ok, checked()} | {:error, String.t()}
  def check(text, policy) when is_binary(text) do
    case Native.check_url(text, policy) do
      {:ok, url} -> {:ok, %{url | host_unicode: readable(url.host_unicode)}}
      {:error, reason} -> {:error, Words.url(reason)}
    end
  end

  def check(_no_text, _policy), do: {:error, "must be text"}

  # IDNA also allows joiners and some punctuation, which a reader cannot see or may
  # mistake for a dot or a slash.
  defp readable(nil), do: nil
  defp readable(host), do: if(host =~ ~r/\A[\p{L}\p{M}\p{N}._-]+\z/u, do: host)
end
