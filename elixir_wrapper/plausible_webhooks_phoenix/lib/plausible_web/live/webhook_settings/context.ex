defmodule PlausibleWeb.Live.WebhookSettings.Context do
  @moduledoc false
  # Whose page it is and who looks at it, out of the session. It is signed, and yet
  # only what exists and has the right callbacks is taken from it.

  alias Plausible.Webhooks.Runtime.Instance

  @enforce_keys [:instance, :site_id, :actor]
  defstruct [:instance, :site_id, :actor, :pubsub, copy?: false]

  @type t :: %__MODULE__{
          instance: atom(),
          site_id: integer(),
          actor: Plausible.Webhooks.Host.actor(),
          pubsub: atom() | nil,
          copy?: boolean()
        }

  @doc """
  `:not_found` for nobody, `:unavailable` while the instance is not running: its
  host cannot be asked who may see what.
  """
  @spec from(map(), Phoenix.LiveView.Socket.t()) ::
          {:ok, t()} | {:error, :not_found | :unavailable}
  def from(%{"site_id" => site_id} = session, socket) when is_integer(site_id) do
    with {:ok, auth} <- module(session["auth"]),
         true <- Code.ensure_loaded?(auth) and function_exported?(auth, :actor, 2),
         {:ok, actor} <- auth.actor(session, socket),
         {:ok, instance} <- module(session["instance"] || "Plausible.Webhooks") do
      if Instance.get(instance),
        do: {:ok, context(session, instance, site_id, actor)},
        else: {:error, :unavailable}
    else
      _nobody -> {:error, :not_found}
    end
  end

  def from(_session, _socket), do: {:error, :not_found}

  defp context(session, instance, site_id, actor) do
    %__MODULE__{
      instance: instance,
      site_id: site_id,
      actor: actor,
      pubsub: pubsub(session["pubsub"]),
      copy?: session["copy"] == true
    }
  end

  # One that is not running cannot be subscribed to; the page asks by itself then.
  defp pubsub(name) do
    with {:ok, pubsub} <- module(name), true <- is_pid(Process.whereis(pubsub)) do
      pubsub
    else
      _none -> nil
    end
  end

  # With or without the prefix of an alias, and with the colon of a plain atom.
  defp module(":" <> name), do: existing(name)
  defp module("Elixir." <> _ = name), do: existing(name)
  defp module(name) when is_binary(name), do: existing("Elixir." <> name)
  defp module(_other), do: :error

  defp existing(name) do
    {:ok, String.to_existing_atom(name)}
  rescue
    ArgumentError -> :error
  end
end
