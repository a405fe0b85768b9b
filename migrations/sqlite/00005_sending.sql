-- +goose Up
-- Facts about the whole installation. A fact that does not hold has no row.
CREATE TABLE installation (
  name   TEXT PRIMARY KEY,              -- sending_paused, restored, backup
  at     INTEGER NOT NULL,              -- since when; of a backup: the time of its snapshot
  actor  TEXT NOT NULL,
  detail TEXT NOT NULL                  -- for people
) STRICT;
