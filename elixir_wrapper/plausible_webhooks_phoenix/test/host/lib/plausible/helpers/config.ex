defmodule Plausible.ConfigHelpers do
  @moduledoc false
  # A variable is a file of that name in the folder, or of the environment.

  def get_var_from_path_or_env(folder, name, default \\ nil) do
    case File.read(Path.join(folder, name)) do
      {:ok, text} -> String.trim(text)
      {:error, _reason} -> System.get_env(name, default)
    end
  end

  def get_int_from_path_or_env(folder, name, default \\ nil) do
    case get_var_from_path_or_env(folder, name) do
      nil -> default
      text -> String.to_integer(text)
    end
  end

  def get_bool_from_path_or_env(folder, name, default \\ nil) do
    case get_var_from_path_or_env(folder, name) do
      nil -> default
      text -> text in ["1", "t", "true", "y", "yes", "on"]
    end
  end

  def get_repo_options(folder) do
    [
      socket_dir: get_var_from_path_or_env(folder, "DATABASE_SOCKET_DIR"),
      database: get_var_from_path_or_env(folder, "DATABASE_NAME", "plausible"),
      username: get_var_from_path_or_env(folder, "DATABASE_USER", "postgres"),
      pool_size: get_int_from_path_or_env(folder, "DATABASE_POOL_SIZE", 10),
      queue_target: 5_000,
      log: false
    ]
  end
end
