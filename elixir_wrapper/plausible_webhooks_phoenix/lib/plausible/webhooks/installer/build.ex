defmodule Plausible.Webhooks.Installer.Build do
  @moduledoc false
  # What has to be there for the hooks to work: the dependency, its configuration,
  # the tables, and in the image what the native library needs.

  alias Plausible.Webhooks.Installer.{Dependency, Source, Step}

  @migrations "priv/repo/migrations"

  # SQLite is not among them: the library is built without it, and Plausible has
  # PostgreSQL.
  @build_packages "cmake curl-dev g++ libidn2-dev openssl-dev simdjson-dev"
  @run_packages "libcurl libidn2 simdjson"

  @type context :: %{
          root: Path.t(),
          dependency: Dependency.t(),
          now: NaiveDateTime.t(),
          eol: String.t()
        }

  @spec steps(context()) :: [Step.t()]
  def steps(context) do
    [dependency(context), configuration(), migration(context), image(context)]
  end

  # --- mix.exs

  defp dependency(%{dependency: dependency}) do
    lines = Dependency.lines(dependency)

    %Step{
      path: "mix.exs",
      where: "in the list of dependencies",
      lines: lines,
      edit: Step.elixir(&dependency(&1, lines)),
      note: "then: mix deps.get"
    }
  end

  defp dependency(source, lines) do
    case Dependency.found(source) || Source.functions(source, [:deps]) do
      [%{body: body}] -> entry(source, body, lines)
      [_ | _] -> {:unknown, "more than one function deps"}
      [] -> {:unknown, "no function deps"}
      _found -> :done
    end
  end

  defp entry(source, body, lines) do
    entries = body |> List.last() |> Source.find(&list?/1) |> Enum.map(&Source.literal/1)

    case Enum.filter(List.first(entries) || [], &name/1) do
      [] ->
        {:unknown, "no list of dependencies in deps"}

      entries ->
        # In its place in the alphabet, for who keeps to it.
        before = Enum.find(entries, hd(entries), &(name(&1) > "plausible_webhooks_phoenix"))

        if Source.alone?(source, before) do
          line = Source.first_line(before)
          {:ok, Source.insert_before(source, line, Source.indented(source, line, lines))}
        else
          {:unknown, "dependencies that are not on lines of their own"}
        end
    end
  end

  defp list?(node), do: is_list(Source.literal(node))

  # {:name, "~> 1.0"} or {:name, "~> 1.0", options}
  defp name({:{}, _meta, [name | _]}), do: to_string(Source.literal(name))

  defp name(node) do
    with {name, _requirement} <- Source.pair(node), do: to_string(Source.literal(name))
  end

  # --- config/runtime.exs

  @configuration [
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

  defp configuration do
    %Step{
      path: "config/runtime.exs",
      where: "at its end",
      lines: tl(@configuration),
      edit: Step.elixir(&configuration/1)
    }
  end

  defp configuration(source) do
    bound =
      for {:=, _meta, [left, _right]} <- Source.expressions(source.ast),
          name = Source.variable(left),
          do: name

    helper? =
      Source.find(source.ast, fn
        {:get_var_from_path_or_env, _meta, args} -> is_list(args)
        _other -> false
      end) != []

    cond do
      configured?(source) -> :done
      :config_dir not in bound -> {:unknown, "no variable config_dir"}
      :secret_key_base not in bound -> {:unknown, "no variable secret_key_base"}
      not helper? -> {:unknown, "get_var_from_path_or_env is not used"}
      true -> {:ok, at_end(source, @configuration)}
    end
  end

  # Others have a from_env of their own.
  defp configured?(source) do
    aliases = Source.aliases(source)

    Source.find(source.ast, fn
      {{:., _, [module, :from_env]}, _meta, _args} ->
        Source.module(module, aliases) == [:Plausible, :Webhooks, :Host, :Plausible, :Config]

      _other ->
        false
    end) != []
  end

  # Before the newline that ends the file.
  defp at_end(source, lines) do
    count = length(source.lines)

    case List.last(source.lines) do
      "" -> Source.insert_after(source, count - 1, lines)
      _text -> source |> Source.insert_after(count, lines) |> Source.insert_after(count, [])
    end
  end

  # --- priv/repo/migrations

  defp migration(%{root: root, now: now, eol: eol}) do
    lines = [
      "defmodule Plausible.Repo.Migrations.AddPlausibleWebhooks do",
      "  use Ecto.Migration",
      "",
      "  def up, do: Plausible.Webhooks.Migrations.up(version: 1, sites: \"sites\")",
      "  def down, do: Plausible.Webhooks.Migrations.down(version: 1)",
      "end"
    ]

    %Step{
      path:
        migration_there(root) ||
          Path.join(@migrations, "#{stamp(now)}_add_plausible_webhooks.exs"),
      where: "as a file of its own",
      lines: lines,
      edit: Step.new(lines, eol),
      note: "then: mix ecto.migrate"
    }
  end

  # By what is in it: somebody may have given it another time or name.
  defp migration_there(root) do
    path =
      Path.join([root, @migrations, "*.exs"])
      |> Path.wildcard()
      |> Enum.find(&(File.read!(&1) =~ ~r/Plausible\.Webhooks\.Migrations\.up\b/))

    path && Path.relative_to(path, root)
  end

  defp stamp(now), do: Calendar.strftime(now, "%Y%m%d%H%M%S")

  # --- Dockerfile

  defp image(%{dependency: dependency}) do
    copied = copied(dependency)

    %Step{
      path: "Dockerfile",
      where:
        "the first behind the apk add of the builder, the last behind that of the image" <>
          if(copied == [], do: "", else: ", COPY before mix deps.get"),
      lines: [build_line()] ++ copied ++ [run_line()],
      edit: Step.text(&image(&1, copied)),
      note: image_note(Dependency.to_copy(dependency))
    }
  end

  defp build_line, do: "RUN apk add --no-cache #{@build_packages}"
  defp run_line, do: "RUN apk add --no-cache #{@run_packages}"

  defp copied(dependency) do
    case Dependency.to_copy(dependency) do
      {:copy, folder} -> ["COPY #{folder} ./#{folder}"]
      _nothing -> []
    end
  end

  defp image_note(:outside) do
    "docker build sees nothing outside of this folder: for an image, take the package with " <>
      "--git, or from a path inside"
  end

  defp image_note(_reachable), do: nil

  # By instructions, which may go on over lines that end with a backslash.
  defp image(source, copied) do
    instructions = instructions(source)
    build = Enum.find(instructions, &(&1.text =~ ~r/^RUN apk add .*\bgcc\b/s))
    # Of the last stage: the builder may have it too.
    run =
      instructions |> Enum.filter(&(&1.text =~ ~r/^RUN apk add .*\blibstdc\+\+/s)) |> List.last()

    copy = Enum.find(instructions, &(&1.text =~ ~r/^COPY mix\.exs\b/))

    cond do
      Enum.join(source.lines, "\n") =~ "simdjson-dev" -> copies(instructions, copied)
      build == nil -> {:unknown, "no RUN apk add with gcc, for the builder"}
      run == nil -> {:unknown, "no RUN apk add with libstdc++, for the image"}
      run.last <= build.last -> {:unknown, "the builder's packages are not the first"}
      copied != [] and copy == nil -> {:unknown, "no COPY mix.exs"}
      true -> {:ok, image(source, build, run, copy, copied)}
    end
  end

  # mix.exs may have come to name another kind of dependency since.
  defp copies(instructions, copied) do
    ours = ~r/^COPY\b.*plausible[-_]webhooks/
    stale = Enum.find(instructions, &(&1.text =~ ours and String.trim(&1.text) not in copied))
    there = Enum.map(instructions, &String.trim(&1.text))

    cond do
      stale != nil ->
        {:unknown,
         "line #{stale.last} copies the package from another place than mix.exs names, " <>
           "and is to be taken away", copied -- there}

      copied -- there != [] and not Enum.any?(there, &(&1 =~ ~r/^COPY \. /)) ->
        {:unknown, "it does not copy the folder that mix.exs names", copied -- there}

      true ->
        :done
    end
  end

  defp image(source, build, run, copy, copied) do
    [
      {run.last, ["# for plausible_webhooks", run_line()]},
      {build.last, ["# for plausible_webhooks", build_line()]}
      | if(copied == [], do: [], else: [{copy.last, copied}])
    ]
    |> Enum.sort(:desc)
    |> Enum.reduce(source, fn {line, lines}, source ->
      Source.insert_after(source, line, lines)
    end)
  end

  defp instructions(source) do
    1..length(source.lines)
    |> Enum.map(&{&1, Source.line(source, &1)})
    |> Enum.chunk_while(
      [],
      fn {_number, text} = line, chunk ->
        if String.ends_with?(String.trim_trailing(text), "\\"),
          do: {:cont, [line | chunk]},
          else: {:cont, Enum.reverse([line | chunk]), []}
      end,
      fn chunk -> {:cont, Enum.reverse(chunk), []} end
    )
    |> Enum.reject(&(&1 == []))
    |> Enum.map(fn lines ->
      {last, _text} = List.last(lines)
      %{last: last, text: Enum.map_join(lines, "\n", &elem(&1, 1))}
    end)
  end
end
