defmodule Plausible.Webhooks.Test.Repo do
  @moduledoc false
  # The host's Repo.
  use Ecto.Repo, otp_app: :plausible_webhooks_phoenix, adapter: Ecto.Adapters.Postgres
end

defmodule Plausible.Webhooks.Test.OwnRepo do
  @moduledoc false
  # One on a server that a test may stop and kill.
  use Ecto.Repo, otp_app: :plausible_webhooks_phoenix, adapter: Ecto.Adapters.Postgres
end
