defmodule PlausibleWeb.Api.ExternalController do
  @moduledoc false
  use PlausibleWeb, :controller

  alias Plausible.Ingestion

  def event(conn, _params) do
    with {:ok, request, conn} <- Ingestion.Request.build(conn),
         {:ok, %{dropped: dropped}} <- Ingestion.Event.build_and_buffer(request) do
      conn |> dropped(dropped) |> put_status(202) |> text("ok")
    else
      {:error, :malformed} -> conn |> put_status(400) |> text("malformed")
    end
  end

  defp dropped(conn, []), do: conn

  defp dropped(conn, dropped),
    do: put_resp_header(conn, "x-plausible-dropped", "#{length(dropped)}")
end
