defmodule PlausibleWeb.LayoutView do
  @moduledoc false
  use PlausibleWeb, :view

  def site_settings_sidebar(conn) do
    regular_site? = Plausible.Sites.regular?(conn.assigns.site)

    [
      %{key: "General", value: "general", icon: :rocket_launch},
      if regular_site? do
        %{key: "People", value: "people", icon: :users}
      end,
      %{key: "Goals", value: "goals", icon: :check_circle},
      if regular_site? do
        %{key: "Integrations", value: "integrations", icon: :puzzle_piece}
      end,
      %{key: "Email reports", value: "email-reports", icon: :envelope}
    ]
    |> Enum.reject(&is_nil/1)
  end

  def app(assigns) do
    ~H"""
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta name="csrf-token" content={Plug.CSRFProtection.get_csrf_token()} />
        <title>Plausible</title>
      </head>
      <body><%= @inner_content %></body>
    </html>
    """
  end

  def site_settings(assigns) do
    ~H"""
    <nav>
      <a :for={item <- site_settings_sidebar(@conn)} href={item.value}><%= item.key %></a>
    </nav>
    <main><%= @inner_content %></main>
    """
  end
end
