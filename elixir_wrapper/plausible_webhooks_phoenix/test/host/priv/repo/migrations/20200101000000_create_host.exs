defmodule Plausible.Repo.Migrations.CreateHost do
  use Ecto.Migration

  def change do
    create table(:users) do
      add :email, :string, null: false
      timestamps()
    end

    create table(:user_sessions) do
      add :token, :string, null: false
      add :user_id, references(:users, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:teams) do
      add :identifier, :uuid, null: false
      add :name, :string
      add :accept_traffic_until, :date
      add :locked, :boolean, null: false, default: false
      add :features, {:array, :string}, null: false
      timestamps()
    end

    create table(:team_memberships) do
      add :role, :string, null: false
      add :team_id, references(:teams, on_delete: :delete_all), null: false
      add :user_id, references(:users, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:sites) do
      add :domain, :string, null: false
      add :timezone, :string, null: false
      add :native_stats_start_at, :naive_datetime, null: false, default: fragment("now()")
      add :allowed_event_props, {:array, :string}
      add :consolidated, :boolean, null: false, default: false
      add :team_id, references(:teams, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:guest_memberships) do
      add :role, :string, null: false
      add :team_membership_id, references(:team_memberships, on_delete: :delete_all), null: false
      add :site_id, references(:sites, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:goals) do
      add :event_name, :text
      add :page_path, :text
      add :scroll_threshold, :integer, null: false, default: -1
      add :display_name, :text, null: false
      add :currency, :string
      add :custom_props, :map, null: false, default: %{}
      add :site_id, references(:sites, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:spike_notifications) do
      add :recipients, {:array, :string}, null: false, default: []
      add :threshold, :integer, null: false
      add :last_sent, :naive_datetime
      add :type, :string, null: false
      add :site_id, references(:sites, on_delete: :delete_all), null: false
      timestamps()
    end

    create table(:audit_entries, primary_key: false) do
      add :id, :uuid, primary_key: true
      add :name, :string, null: false
      add :entity, :string, null: false
      add :entity_id, :string, null: false
      add :meta, :map
      add :change, :map
      add :user_id, :integer
      add :team_id, :integer
      add :actor_type, :string, null: false
      add :datetime, :naive_datetime_usec, null: false
    end
  end
end
