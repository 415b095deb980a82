defmodule PlausibleWeb.SiteView do
  @moduledoc false
  use PlausibleWeb, :view

  embed_templates("../templates/site/*")
end
