-- +goose Up
-- A node leases its number and beats; what a node that stopped beating had in
-- hand is taken over by the others.
DROP TABLE nodes;
CREATE TABLE nodes (
  id         INTEGER PRIMARY KEY,       -- node number, 0 to 1023
  token      INTEGER NOT NULL,          -- of the life that holds the number; 0: free
  name       TEXT NOT NULL,
  role       TEXT NOT NULL,             -- all, api, worker, command
  version    TEXT NOT NULL,             -- of the program
  started_at INTEGER NOT NULL,
  beat_at    INTEGER NOT NULL,
  horizon    INTEGER NOT NULL           -- no id of this number was made for a later moment
) STRICT;

CREATE TABLE duties (                   -- background work that one node does at a time
  name  TEXT PRIMARY KEY,
  until INTEGER NOT NULL                -- nobody else begins before
) STRICT, WITHOUT ROWID;
