-- The events as ClickHouse keeps them, as far as webhooks ask of them, and the
-- aggregates of ClickHouse that count distinct values.
CREATE SCHEMA IF NOT EXISTS clickhouse;
SET search_path TO clickhouse;

CREATE TABLE events_v2 (
  name text NOT NULL,
  site_id bigint NOT NULL,
  hostname text NOT NULL DEFAULT '',
  pathname text NOT NULL DEFAULT '',
  user_id bigint NOT NULL,
  session_id bigint NOT NULL DEFAULT 0,
  "timestamp" timestamp(0) NOT NULL,
  "meta.key" text[] NOT NULL DEFAULT '{}',
  "meta.value" text[] NOT NULL DEFAULT '{}',
  scroll_depth integer NOT NULL DEFAULT 255,
  revenue_source_amount numeric(18, 3),
  revenue_source_currency text NOT NULL DEFAULT '',
  revenue_reporting_amount numeric(18, 3),
  revenue_reporting_currency text NOT NULL DEFAULT '',
  referrer text NOT NULL DEFAULT '',
  referrer_source text NOT NULL DEFAULT '',
  utm_medium text NOT NULL DEFAULT '',
  utm_source text NOT NULL DEFAULT '',
  utm_campaign text NOT NULL DEFAULT '',
  utm_content text NOT NULL DEFAULT '',
  utm_term text NOT NULL DEFAULT '',
  country_code text NOT NULL DEFAULT '',
  screen_size text NOT NULL DEFAULT '',
  operating_system text NOT NULL DEFAULT '',
  browser text NOT NULL DEFAULT ''
);

CREATE INDEX ON events_v2 (site_id, "timestamp");

CREATE FUNCTION uniq_count(bigint[]) RETURNS bigint LANGUAGE sql IMMUTABLE
  AS 'SELECT count(DISTINCT value) FROM unnest($1) AS value';

CREATE FUNCTION uniq_add_if(bigint[], bigint, boolean) RETURNS bigint[] LANGUAGE sql IMMUTABLE
  AS 'SELECT CASE WHEN $3 THEN array_append($1, $2) ELSE $1 END';

CREATE AGGREGATE uniq(bigint)
  (SFUNC = array_append, STYPE = bigint[], FINALFUNC = uniq_count, INITCOND = '{}');

CREATE AGGREGATE uniqIf(bigint, boolean)
  (SFUNC = uniq_add_if, STYPE = bigint[], FINALFUNC = uniq_count, INITCOND = '{}');
