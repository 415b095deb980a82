defmodule Plausible.Webhooks.Native do
  @moduledoc false
  # Stubs of the NIF, nothing else. A wrong type raises ArgumentError; what goes
  # wrong at run time is {:error, reason}.

  @compile {:autoload, false}
  @on_load :load
  @abi 1

  @doc false
  def load do
    path = :filename.join(:code.priv_dir(:plausible_webhooks), ~c"plausible_webhooks_nif")

    case :erlang.load_nif(path, @abi) do
      :ok -> :ok
      {:error, {reason, text}} -> raise "cannot load #{path}.so: #{reason}, #{text}"
    end
  end

  @spec sign([String.t()], String.t(), integer(), binary()) ::
          {:ok, String.t()} | {:error, atom()}
  def sign(_keys, _id, _unix_seconds, _body), do: :erlang.nif_error(:not_loaded)

  @spec verify([String.t()], String.t(), integer(), String.t(), binary(), integer(), integer()) ::
          :ok | {:error, atom()}
  def verify(_keys, _id, _unix_seconds, _header, _body, _now, _tolerance_s),
    do: :erlang.nif_error(:not_loaded)

  @spec generate_secret() :: {:ok, String.t()} | {:error, atom()}
  def generate_secret, do: :erlang.nif_error(:not_loaded)

  @spec generate_keypair() :: {:ok, {String.t(), String.t()}} | {:error, atom()}
  def generate_keypair, do: :erlang.nif_error(:not_loaded)

  @spec encode(term()) :: {:ok, binary()} | {:error, {atom(), [term()]}}
  def encode(_term), do: :erlang.nif_error(:not_loaded)

  @spec decode(binary()) :: {:ok, term()} | {:error, {atom(), non_neg_integer()}}
  def decode(_json), do: :erlang.nif_error(:not_loaded)

  @spec check_url(String.t(), map()) :: {:ok, map()} | {:error, atom()}
  def check_url(_url, _policy), do: :erlang.nif_error(:not_loaded)

  @spec engine_start(map()) :: {:ok, reference()} | {:error, atom()}
  def engine_start(_options), do: :erlang.nif_error(:not_loaded)

  @spec put_endpoint(reference(), map()) :: :ok | {:error, atom()}
  def put_endpoint(_engine, _endpoint), do: :erlang.nif_error(:not_loaded)

  @spec delete_endpoint(reference(), String.t()) :: :ok | {:error, atom()}
  def delete_endpoint(_engine, _webhook_id), do: :erlang.nif_error(:not_loaded)

  @spec submit(reference(), [map()]) ::
          {:ok, non_neg_integer()} | {:error, :overloaded | :stopped}
  def submit(_engine, _deliveries), do: :erlang.nif_error(:not_loaded)

  @spec run_once(reference(), non_neg_integer()) :: {:ok, [map()]} | {:error, atom()}
  def run_once(_engine, _max_wait_ms), do: :erlang.nif_error(:not_loaded)

  @spec stats(reference()) :: map()
  def stats(_engine), do: :erlang.nif_error(:not_loaded)

  @spec engine_stop(reference(), non_neg_integer()) :: {:ok, [String.t()]} | {:error, atom()}
  def engine_stop(_engine, _drain_ms), do: :erlang.nif_error(:not_loaded)
end
