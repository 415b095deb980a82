defmodule Plausible.Webhooks.InstallerUpgradeTest do
  # The installer on a tree that an older version of the package has changed.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Installer

  @moduletag :tmp_dir
  @now ~N[2027-03-04 05:06:07]
  @folder "priv/repo/migrations"

  defp migration!(root, name, text) do
    File.mkdir_p!(Path.join(root, @folder))
    File.write!(Path.join([root, @folder, name]), text)
  end

  defp change(root, ours?, version \\ 3) do
    changes = Installer.plan(root, now: @now, version: version, page: false)
    Enum.find(changes, &ours?.(&1.path))
  end

  defp migration(root, version), do: change(root, &String.starts_with?(&1, @folder), version)

  test "adds a migration from the version that is there to the newest", %{tmp_dir: root} do
    up = "Plausible.Webhooks.Migrations.up(version: 1, sites: \"sites\")"
    migration!(root, "20261126102030_hooks.exs", "def up, do: #{up}")
    assert %{result: {:edit, nil, text}, note: note} = change = migration(root, 3)
    assert change.path == "#{@folder}/20270304050607_upgrade_plausible_webhooks_to_v3.exs"

    assert text == """
           defmodule Plausible.Repo.Migrations.UpgradePlausibleWebhooksToV3 do
             use Ecto.Migration

             def up, do: Plausible.Webhooks.Migrations.up(version: 3)
             def down, do: Plausible.Webhooks.Migrations.down(version: 2)
           end
           """

    assert note =~ "from version 1 to 3" and note =~ "CHANGELOG.md"

    Installer.write!(root, [change])
    assert migration(root, 3).result == :done
    assert migration(root, 4).path =~ "to_v4"
  end

  test "adds no migration where one goes to the newest version", %{tmp_dir: root} do
    migration!(root, "20261126102030_hooks.exs", "Plausible.Webhooks.Migrations.up()")
    assert migration(root, 3).result == :done
    migration!(root, "20261126102030_hooks.exs", "Plausible.Webhooks.Migrations.up(version: 3)")
    assert migration(root, 3).result == :done
  end

  test "names the packages that an image lacks", %{tmp_dir: root} do
    build =
      "RUN apk add --no-cache c-ares-dev cmake curl-dev g++ libidn2-dev openssl-dev simdjson-dev"

    run = "RUN apk add --no-cache c-ares libcurl \\\n  simdjson"
    File.write!(Path.join(root, "Dockerfile"), "#{build}\n#{run}\n")
    assert %{result: {:unknown, why}, lines: lines} = change(root, &(&1 == "Dockerfile"))
    assert why == "this version needs more packages: libidn2"
    assert lines == ["RUN apk add --no-cache libidn2"]

    File.write!(Path.join(root, "Dockerfile"), "#{build}\n#{run} libidn2\n")
    assert change(root, &(&1 == "Dockerfile")).result == :done
  end
end
