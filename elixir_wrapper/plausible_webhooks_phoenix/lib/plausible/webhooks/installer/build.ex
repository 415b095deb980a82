defmodule Plausible.Webhooks.Installer.Build do
  @moduledoc false
  # What the hooks need: the dependency, its configuration, the tables, and the packages
  # of the image.

  import Plausible.Webhooks.Installer.Step,
    only: [before!: 4, one!: 3, unknown!: 1, unknown!: 2]

  alias Plausible.Webhooks.Installer.{Dependency, Source, Step}

  @migrations "priv/repo/migrations"

  # Without SQLite: Plausible has PostgreSQL, and the library is built without the other.
  @build_packages ~w(c-ares-dev cmake curl-dev g++ libidn2-dev openssl-dev simdjson-dev)
  @run_packages ~w(c-ares libcurl libidn2 simdjson)

  @type context :: %{
          root: Path.t(),
          dependency: Dependency.t(),
          now: NaiveDateTime.t(),
          version: pos_integer(),
          eol: String.t()
        }

  @spec steps(context()) :: [Step.t()]
  def steps(context) do
    lines = Dependency.lines(context.dependency)

    [
      %Step{
        path: "mix.exs",
        where: "in the list of dependencies",
        lines: lines,
        places: &if(Dependency.found(&1), do: [], else: [dependency(&1, lines)]),
        note: "then: mix deps.get"
      },
      %Step{
        path: "config/runtime.exs",
        where: "at its end",
        lines: tl(configuration_lines()),
        places: &configuration/1
      },
      migration(context),
      image(context.dependency)
    ]
  end

  # --- mix.exs

  defp dependency(source, lines) do
    %{body: body} =
      source
      |> Source.functions([:deps])
      |> one!("no function deps", "more than one function deps")

    list = body |> List.last() |> Source.find(&is_list(Source.literal(&1))) |> List.first()
    entries = list |> Source.literal() |> List.wrap() |> Enum.filter(&name/1)
    if entries == [], do: unknown!("no list of dependencies in deps")
    # Keeps an alphabetical order.
    next = Enum.find(entries, hd(entries), &(name(&1) > "plausible_webhooks_phoenix"))
    before!(source, next, lines, "dependencies that are not on lines of their own")
  end

  # {:name, "~> 1.0"} or {:name, "~> 1.0", options}
  defp name({:{}, _meta, [name | _]}), do: to_string(Source.literal(name))

  defp name(node) do
    with {name, _requirement} <- Source.pair(node), do: to_string(Source.literal(name))
  end

  # --- config/runtime.exs

  defp configuration_lines do
    [
      "",
      "# webhooks: the variables are explained in the docs/plausible.md of that package",
      "config :plausible,",
      "       Plausible.Webhooks,",
      "       Plausible.Webhooks.Host.Plausible.Config.from_env(",
      "         &get_var_from_path_or_env(config_dir, &1),",
      "         secret_key_base: secret_key_base,",
      "         enabled: config_env() not in [:test, :ce_test]",
      "       )"
    ]
  end

  defp configuration(source) do
    bound = source.ast |> Source.expressions() |> Source.bound()

    cond do
      Source.any?(source.ast, &configured?(&1, source)) -> []
      :config_dir not in bound -> unknown!("no variable config_dir")
      :secret_key_base not in bound -> unknown!("no variable secret_key_base")
      not Source.any?(source.ast, &helper?/1) -> unknown!("get_var_from_path_or_env is not used")
      true -> [{last_line(source), nil, configuration_lines()}]
    end
  end

  # Other modules have a from_env of their own.
  defp configured?({{:., _, [module, :from_env]}, _meta, _args}, source),
    do: Source.module?(source, module, [:Plausible, :Webhooks, :Host, :Plausible, :Config])

  defp configured?(_other, _source), do: false

  defp helper?({:get_var_from_path_or_env, _meta, args}), do: is_list(args)
  defp helper?(_other), do: false

  # What follows the last newline is not a line.
  defp last_line(%{lines: lines}),
    do: if(List.last(lines) == "", do: length(lines) - 1, else: length(lines))

  # --- priv/repo/migrations

  defp migration(%{root: root, now: now, version: version}) do
    {path, there} = migration_there(root, version)
    new = &Path.join(@migrations, "#{Calendar.strftime(now, "%Y%m%d%H%M%S")}_#{&1}.exs")

    {path, module, sites} =
      cond do
        path == nil ->
          {new.("add_plausible_webhooks"), "AddPlausibleWebhooks", ~s(, sites: "sites")}

        there >= version ->
          {path, "AddPlausibleWebhooks", ""}

        true ->
          {new.("upgrade_plausible_webhooks_to_v#{version}"),
           "UpgradePlausibleWebhooksToV#{version}", ""}
      end

    %Step{
      path: path,
      kind: :new,
      where: "as a file of its own",
      lines: [
        "defmodule Plausible.Repo.Migrations.#{module} do",
        "  use Ecto.Migration",
        "",
        "  def up, do: Plausible.Webhooks.Migrations.up(version: #{version}#{sites})",
        "  def down, do: Plausible.Webhooks.Migrations.down(version: #{there + 1})",
        "end"
      ],
      note: migration_note(there, version)
    }
  end

  defp migration_note(0, _version), do: "then: mix ecto.migrate"

  defp migration_note(there, version) do
    "the tables go from version #{there} to #{version}; the package's CHANGELOG.md says what " <>
      "changes. Then: mix ecto.migrate"
  end

  # The migration of ours to the newest version, by its content: somebody may have given
  # it another time or name. Without a version it goes to the newest there is.
  defp migration_there(root, newest) do
    found =
      for path <- Path.wildcard(Path.join([root, @migrations, "*.exs"])),
          text = File.read!(path),
          [_all | version] <-
            Regex.scan(
              ~r/Plausible\.Webhooks\.Migrations\.up\b(?:\([^)]*\bversion: (\d+))?/,
              text
            ),
          do: {Path.relative_to(path, root), version(version, newest)}

    Enum.max_by(found, &elem(&1, 1), fn -> {nil, 0} end)
  end

  defp version([], newest), do: newest
  defp version([text], _newest), do: String.to_integer(text)

  # --- Dockerfile

  defp image(dependency) do
    copied =
      case Dependency.to_copy(dependency) do
        {:copy, folder} -> ["COPY #{folder} ./#{folder}"]
        _nothing -> []
      end

    %Step{
      path: "Dockerfile",
      kind: :text,
      where:
        "the first after the builder's apk add, the last after the image's" <>
          if(copied == [], do: "", else: ", COPY before mix deps.get"),
      lines: [add(@build_packages)] ++ copied ++ [add(@run_packages)],
      places: &image(&1, copied),
      note:
        if(Dependency.to_copy(dependency) == :outside,
          do:
            "docker build sees nothing outside of this folder: for an image, add the package " <>
              "with --git, or from a path inside"
        )
    }
  end

  defp add(packages), do: "RUN apk add --no-cache #{Enum.join(packages, " ")}"

  defp image(source, copied) do
    instructions = instructions(source)

    if Enum.any?(instructions, fn {_last, text} -> text =~ "simdjson-dev" end),
      do: check_image(instructions, copied),
      else: image_places(instructions, copied)
  end

  defp image_places(instructions, copied) do
    adding = &Enum.filter(instructions, fn {_last, text} -> text =~ &1 end)
    build = adding.(~r/^RUN apk add .*\bgcc\b/s) |> List.first()
    # The last stage is the image; the builder may have libstdc++ too.
    run = adding.(~r/^RUN apk add .*\blibstdc\+\+/s) |> List.last()
    copy = adding.(~r/^COPY mix\.exs\b/) |> List.first()

    cond do
      build == nil -> unknown!("no RUN apk add with gcc, for the builder")
      run == nil -> unknown!("no RUN apk add with libstdc++, for the image")
      elem(run, 0) <= elem(build, 0) -> unknown!("the builder's packages are not the first")
      copied != [] and copy == nil -> unknown!("no COPY mix.exs")
      true -> :ok
    end

    for {{last, _text}, lines} <- [
          {build, ["# for plausible_webhooks", add(@build_packages)]},
          {run, ["# for plausible_webhooks", add(@run_packages)]},
          {copy, copied}
        ],
        lines != [],
        do: {last, nil, lines}
  end

  # mix.exs may name another kind of dependency by now, and a newer version of the package
  # may need more than an older one has added.
  defp check_image(instructions, copied) do
    there = Enum.map(instructions, fn {_last, text} -> String.trim(text) end)
    missing = Enum.reject(@build_packages ++ @run_packages, &has?(there, &1))

    stale =
      Enum.find(instructions, fn {_last, text} ->
        text =~ ~r/^COPY\b.*plausible[-_]webhooks/ and String.trim(text) not in copied
      end)

    cond do
      stale != nil ->
        unknown!(
          "line #{elem(stale, 0)} copies the package from another place than mix.exs names, " <>
            "and must be removed",
          copied -- there
        )

      copied -- there != [] and not Enum.any?(there, &(&1 =~ ~r/^COPY \. /)) ->
        unknown!("it does not copy the folder that mix.exs names", copied -- there)

      missing != [] ->
        unknown!("this version needs more packages: #{Enum.join(missing, ", ")}", [add(missing)])

      true ->
        []
    end
  end

  defp has?(instructions, package),
    do: Enum.any?(instructions, &(&1 =~ ~r/^RUN apk\b/ and package in String.split(&1)))

  # {last line, text}: an instruction goes on where a line ends with a backslash.
  defp instructions(source) do
    text = Enum.map_join(source.lines, "\n", &String.trim_trailing(&1, "\r"))

    for [{at, size}] <-
          Regex.scan(~r/^(?:RUN|COPY)\b(?:.*\\[ \t]*\n)*.*/m, text, return: :index) do
      last = text |> binary_part(0, at + size) |> String.split("\n") |> length()
      {last, binary_part(text, at, size)}
    end
  end
end
