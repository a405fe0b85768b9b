-- +goose Up
-- A node leases its number and beats; what a node that stopped beating had in
-- hand is taken over by the others.
DROP TABLE nodes;
CREATE TABLE nodes (
  id         SMALLINT PRIMARY KEY,       -- node number, 0 to 1023
  token      BIGINT NOT NULL,          -- of the life that holds the number; 0: free
  name       TEXT NOT NULL,
  role       TEXT NOT NULL,             -- all, api, worker, command
  version    TEXT NOT NULL,             -- of the program
  started_at BIGINT NOT NULL,
  beat_at    BIGINT NOT NULL,
  horizon    BIGINT NOT NULL           -- no id of this number was made for a later moment
);

CREATE TABLE duties (                   -- background work that one node does at a time
  name  TEXT PRIMARY KEY,
  until BIGINT NOT NULL                -- nobody else begins before
);
