// Package pgtest gives tests PostgreSQL: a database of their own each, on a
// server that the first test of the process starts, and servers that a test may
// kill, fill up or fail over.
//
// Everything runs from installed programs in temporary folders, on loopback, as
// an unprivileged user, and ends with the test process even if that is killed.
// Where a program is missing the test is skipped, loudly, or fails if the
// environment variable CARILLON_REQUIRE names it.
package pgtest
