defmodule Plausible.Webhooks.Migrations do
  @moduledoc """
  Makes and changes the tables of `Plausible.Webhooks.Store.Ecto`, in migrations of the
  host.

      defmodule MyApp.Repo.Migrations.AddWebhooks do
        use Ecto.Migration

        def up, do: Plausible.Webhooks.Migrations.up(version: 1, sites: "sites")
        def down, do: Plausible.Webhooks.Migrations.down(version: 1)
      end

  `up/1` migrates from the present version to the given one. `down/1` undoes the given version
  and all newer ones. Name the version in a migration, so that it does the same after an
  upgrade of this package. The next version gets a migration of its own.

  Options:

    * `:version` - default for `up/1` the newest, for `down/1` the first.
    * `:prefix` - the schema, default `"public"`; created if missing.
    * `:sites` - the host's table of sites: a name, or `[table: "sites", column: "id",
      prefix: "analytics"]`; default `nil`, no reference. Deleting a site then deletes its
      webhooks (`ON DELETE CASCADE`); their log follows in slices, when old deliveries are
      pruned. Without a prefix, the connection's `search_path` finds the table, as in the
      host's own queries. The column is an integer of any size.
    * `:concurrently` - create indexes `CONCURRENTLY`, default `false`. Version 1 ignores it,
      since its tables are new. A later version may add an index to a large table; then the
      migration must not run in a transaction:

          @disable_ddl_transaction true
          @disable_migration_lock true

          def up, do: Plausible.Webhooks.Migrations.up(version: 2, concurrently: true)

  The migrations need neither a superuser nor an extension. Call them in `up` and `down`, not
  in `change`. If the application's role is not the one that migrates, it needs
  `SELECT, INSERT, UPDATE, DELETE` on the tables and `USAGE` on the sequence
  `webhook_deliveries_seq_seq`.

  Nodes notice the deletion of a site within a minute, and deliver to its webhooks until
  then. To stop sooner, the host calls `Plausible.Webhooks.goals_changed/1` with the site's id
  after the commit.

  ## Old nodes on new tables

  During a rollout, nodes of the old release keep working, and may restart, after the new
  release has migrated. Only the new release knows whether they can, so it leaves a comment
  on the table `webhooks`: "plausible_webhooks version 3, compatible from 2". A node that
  knows version 2 works with these tables. One that knows version 1 refuses to start
  (`{:newer_schema, 3}`). Each version declares `compatible_from/0`.

  In the other direction, new code on older tables refuses to start (`{:older_schema, 1}`):
  migrations run first.
  """

  use Ecto.Migration

  alias Plausible.Webhooks.Migrations.V01

  @versions %{1 => V01}

  @typedoc "See above. `sites` is checked and quoted by `options/1`."
  @type options :: %{
          version: pos_integer(),
          prefix: String.t(),
          create_schema?: boolean(),
          sites: String.t() | nil,
          concurrently: boolean()
        }

  @doc "The newest version."
  @spec current_version() :: pos_integer()
  def current_version, do: @versions |> Map.keys() |> Enum.max()

  @doc "Creates the tables, or upgrades them."
  @spec up(keyword()) :: :ok
  def up(opts \\ []) when is_list(opts) do
    options = options(opts, current_version())
    # Earlier commands of the same migration are only queued. In a `change` that is rolled
    # back this raises.
    flush()
    there = version_there(repo(), options.prefix)

    if there < options.version do
      # IF NOT EXISTS alone needs the right to create a schema.
      if there == 0 and options.create_schema? and not schema?(options.prefix),
        do: execute("CREATE SCHEMA IF NOT EXISTS #{options.prefix}")

      for version <- (there + 1)..options.version, do: @versions[version].up(options)
      comment(options, options.version)
    end

    :ok
  end

  @doc "Undoes a version and all newer ones, including the data."
  @spec down(keyword()) :: :ok
  def down(opts \\ []) when is_list(opts) do
    options = options(opts, 1)
    flush()
    there = version_there(repo(), options.prefix)

    if there > current_version(),
      do: raise("the tables are of version #{there}, which only a newer release can undo")

    if there >= options.version do
      for version <- there..options.version//-1, do: @versions[version].down(options)
      if options.version > 1, do: comment(options, options.version - 1)
    end

    :ok
  end

  @doc """
  Returns the present version, 0 without tables.

      Plausible.Webhooks.Migrations.migrated_version(MyApp.Repo, prefix: "webhooks")
  """
  @spec migrated_version(module(), keyword()) :: non_neg_integer()
  def migrated_version(repo, opts \\ []) do
    opts = Keyword.validate!(opts, prefix: "public")
    version_there(repo, quoted!(opts[:prefix]))
  end

  defp version_there(repo, prefix) do
    sql = "SELECT obj_description(to_regclass($1), 'pg_class')"
    %{rows: [[comment]]} = repo.query!(sql, ["#{prefix}.webhooks"], log: false)

    case version_of(comment) do
      {:ok, version, _compatible_from} -> version
      :error -> 0
    end
  end

  defp schema?(prefix) do
    %{rows: [[there?]]} =
      repo().query!("SELECT to_regnamespace($1) IS NOT NULL", [prefix], log: false)

    there?
  end

  defp comment(options, version) do
    text = word(version, @versions[version].compatible_from())
    execute("COMMENT ON TABLE #{options.prefix}.webhooks IS '#{text}'")
  end

  @doc false
  @spec word(pos_integer(), pos_integer()) :: String.t()
  def word(version, compatible_from),
    do: "plausible_webhooks version #{version}, compatible from #{compatible_from}"

  @doc false
  @spec version_of(String.t() | nil) ::
          {:ok, version :: pos_integer(), compatible_from :: pos_integer()} | :error
  def version_of(comment) do
    # A later version may add more behind a semicolon.
    word =
      ~r/\Aplausible_webhooks version ([1-9]\d{0,8}), compatible from ([1-9]\d{0,8})(;.*)?\z/s

    case comment && Regex.run(word, comment) do
      [_all, version, from | _more] -> {:ok, String.to_integer(version), String.to_integer(from)}
      nil -> :error
    end
  end

  # --- options

  defp options(opts, version) do
    defaults = [version: version, prefix: "public", sites: nil, concurrently: false]
    opts = Keyword.validate!(opts, defaults)

    unless opts[:version] in 1..current_version() do
      raise ArgumentError,
            "there is no version #{inspect(opts[:version])}; the newest is #{current_version()}"
    end

    %{
      version: opts[:version],
      prefix: quoted!(opts[:prefix]),
      create_schema?: opts[:prefix] != "public",
      sites: sites(opts[:sites]),
      concurrently: opts[:concurrently] == true
    }
  end

  defp sites(nil), do: nil
  defp sites(table) when is_binary(table) or is_atom(table), do: sites(table: table)

  defp sites(opts) when is_list(opts) do
    opts = Keyword.validate!(opts, [:table, :prefix, column: "id"])
    [table, column] = for key <- [:table, :column], do: quoted!("#{opts[key]}")
    prefix = if opts[:prefix] == nil, do: "", else: quoted!("#{opts[:prefix]}") <> "."
    "#{prefix}#{table} (#{column})"
  end

  defp quoted!(name) do
    if prefix?(name),
      do: quoted(name),
      else: raise(ArgumentError, "not a usable name: #{inspect(name)}")
  end

  # No quotes, so that a quoted name can stand in a string literal too. PostgreSQL truncates
  # longer names.
  @doc false
  @spec prefix?(term()) :: boolean()
  def prefix?(name) do
    is_binary(name) and byte_size(name) in 1..63 and String.valid?(name) and
      not String.contains?(name, ["'", ~s("), "\\", "\0"])
  end

  @doc false
  @spec quoted(String.t()) :: String.t()
  def quoted(name), do: ~s("#{name}")
end
