import Config
import Plausible.ConfigHelpers

config_dir = System.get_env("CONFIG_DIR", "/run/secrets")

base_url =
  config_dir |> get_var_from_path_or_env("BASE_URL", "http://localhost:8000") |> URI.parse()

secret_key_base = get_var_from_path_or_env(config_dir, "SECRET_KEY_BASE")

config :plausible, Plausible.Repo, get_repo_options(config_dir)
config :plausible, Plausible.ClickhouseRepo, get_repo_options(config_dir)

config :plausible,
  super_admin_user_ids: [get_int_from_path_or_env(config_dir, "ADMIN_USER_ID", 1)]

config :plausible, PlausibleWeb.Endpoint,
  adapter: Bandit.PhoenixAdapter,
  url: [scheme: base_url.scheme, host: base_url.host, path: base_url.path, port: base_url.port],
  http: [
    ip: {127, 0, 0, 1},
    port: get_int_from_path_or_env(config_dir, "HTTP_PORT", 0),
    startup_log: false
  ],
  live_view: [signing_salt: "a salt for these"],
  secret_key_base: secret_key_base,
  server: true

base_cron = [
  {"*/15 * * * *", Plausible.Workers.TrafficChangeNotifier}
]

base_queues = [
  spike_notifications: 1
]

config :plausible, Oban,
  repo: Plausible.Repo,
  plugins: [{Oban.Plugins.Cron, crontab: base_cron}],
  queues: base_queues
