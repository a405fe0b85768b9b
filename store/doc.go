// Package store keeps everything in one database: SQLite inside the process.
//
// One goroutine writes. Whatever waits to be written when it comes round shares
// one transaction and one fsync (group commit), so that a durable 202 costs a
// fraction of a sync. Reads go to a pool of their own and never wait for it.
// Models and rare statements use gorm; the statements that every delivery
// passes through are plain SQL, prepared once.
package store
