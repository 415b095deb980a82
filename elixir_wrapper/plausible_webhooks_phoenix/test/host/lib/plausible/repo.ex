defmodule Plausible.Repo do
  @moduledoc false
  use Ecto.Repo, otp_app: :plausible, adapter: Ecto.Adapters.Postgres

  defmacro __using__(_) do
    quote do
      alias Plausible.Repo
      import Ecto
      import Ecto.Query, only: [from: 1, from: 2]
    end
  end
end
