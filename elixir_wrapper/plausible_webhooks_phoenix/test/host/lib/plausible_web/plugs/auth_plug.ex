defmodule PlausibleWeb.AuthPlug do
  @moduledoc false
  import Plug.Conn

  def init(opts), do: opts

  def call(conn, _opts) do
    case PlausibleWeb.UserAuth.get_user_session(conn) do
      {:ok, session} ->
        merge_assigns(conn, current_user_session: session, current_user: session.user)

      {:error, _reason} ->
        conn
    end
  end
end

defmodule PlausibleWeb.UserAuth do
  @moduledoc false
  alias Plausible.Auth.UserSession
  alias Plausible.Repo

  def get_user_session(%Plug.Conn{} = conn),
    do: conn |> Plug.Conn.get_session("user_token") |> by_token()

  def get_user_session(session) when is_map(session), do: by_token(session["user_token"])

  defp by_token(nil), do: {:error, :no_session}

  defp by_token(token) do
    case Repo.get_by(UserSession, token: token) do
      nil -> {:error, :session_not_found}
      session -> {:ok, Repo.preload(session, user: :team_memberships)}
    end
  end
end
