package gormsqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	_ "modernc.org/sqlite" // the driver

	"github.com/carillonhq/carillon/store/gormsqlite"
)

// book is a row of a table whose names are words of SQL.
type book struct {
	ID     int64
	Order  string // the column "order"
	Group  *int64
	Copies int64 `gorm:"default:(7)"` // the database's own
}

// TableName implements gorm's Tabler.
func (book) TableName() string { return "select" }

const schema = "CREATE TABLE `select` (id INTEGER PRIMARY KEY, `order` TEXT NOT NULL UNIQUE, `group` INTEGER, copies INTEGER NOT NULL DEFAULT 7)"

func open(t *testing.T) *gorm.DB {
	t.Helper()
	pool, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "books.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	_, err = pool.ExecContext(t.Context(), schema)
	require.NoError(t, err)
	db, err := gorm.Open(gormsqlite.New(pool), &gorm.Config{DisableAutomaticPing: true, Logger: logger.Discard})
	require.NoError(t, err)
	return db
}

func TestAPoolThatCannotConnectIsRefused(t *testing.T) {
	t.Parallel()
	pool, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "absent", "books.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	_, err = gorm.Open(gormsqlite.New(pool), &gorm.Config{DisableAutomaticPing: true, Logger: logger.Discard})
	require.ErrorContains(t, err, "unable to open database file")
}

func library(t *testing.T, titles ...string) *gorm.DB {
	t.Helper()
	db := open(t)
	for i, title := range titles {
		require.NoError(t, db.Create(&book{ID: int64(i + 1), Order: title, Copies: 1}).Error)
	}
	return db
}

func titles(t *testing.T, q *gorm.DB) []string {
	t.Helper()
	var list []book
	require.NoError(t, q.Find(&list).Error)
	out := []string{}
	for _, b := range list {
		out = append(out, b.Order)
	}
	return out
}

func TestCreateAndFind(t *testing.T) {
	t.Parallel()
	db := open(t)
	group := int64(3)
	require.NoError(t, db.Create(&book{ID: 5, Order: "it's ? `odd`", Group: &group, Copies: 2}).Error)
	var list []book
	require.NoError(t, db.Where("`order`=? AND id>?", "it's ? `odd`", 4).Find(&list).Error)
	require.Equal(t, []book{{ID: 5, Order: "it's ? `odd`", Group: &group, Copies: 2}}, list)
	require.NoError(t, db.Where(&book{Group: &group}).Find(&list).Error)
	require.Len(t, list, 1)
	require.NoError(t, db.Where(map[string]any{"order": []string{"x", "y"}}).Find(&list).Error)
	require.Empty(t, list)
}

// TestTheDatabaseFillsIn: ids and defaults come back with RETURNING.
func TestTheDatabaseFillsIn(t *testing.T) {
	t.Parallel()
	db := open(t)
	one := book{Order: "one"}
	require.NoError(t, db.Create(&one).Error)
	require.Equal(t, book{ID: 1, Order: "one", Copies: 7}, one)

	several := []book{{Order: "two", Copies: 1}, {ID: 9, Order: "nine", Copies: 1}, {Order: "ten", Copies: 1}}
	require.NoError(t, db.Create(&several).Error)
	require.Equal(t, []int64{2, 9, 10}, []int64{several[0].ID, several[1].ID, several[2].ID})

	mixed := []book{{ID: 20, Order: "a", Copies: 1}, {ID: 21, Order: "b"}}
	require.Error(t, db.Create(&mixed).Error, "no default among values: refused, not taken for NULL")
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	db := library(t, "one", "two", "three")
	r := db.Model(&book{}).Where("id<? AND copies=1", 3).Updates(map[string]any{"group": 4, "copies": gorm.Expr("copies+?", 1)})
	require.NoError(t, r.Error)
	require.EqualValues(t, 2, r.RowsAffected)
	require.Equal(t, []string{"one", "two"}, titles(t, db.Where("`group`=4 AND copies=2").Order("id")))

	changed := book{ID: 3}
	require.NoError(t, db.Model(&changed).Clauses(clause.Returning{}).Updates(map[string]any{"order": "drei"}).Error)
	require.Equal(t, book{ID: 3, Order: "drei", Copies: 1}, changed)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	db := library(t, "one", "two", "three")
	var gone []book
	r := db.Clauses(clause.Returning{}).Where("id>=?", 2).Delete(&gone)
	require.NoError(t, r.Error)
	require.EqualValues(t, 2, r.RowsAffected)
	require.Len(t, gone, 2)
	require.Equal(t, []string{"one"}, titles(t, db))
}

func TestLimitAndOffset(t *testing.T) {
	t.Parallel()
	db := library(t, "1", "2", "3", "4").Order("id").Session(&gorm.Session{})
	require.Equal(t, []string{"1", "2"}, titles(t, db.Limit(2)))
	require.Equal(t, []string{"2", "3"}, titles(t, db.Limit(2).Offset(1)))
	require.Equal(t, []string{"3", "4"}, titles(t, db.Offset(2)), "an offset alone")
	require.Empty(t, titles(t, db.Limit(0)))
	require.Len(t, titles(t, db.Limit(-1)), 4)

	dry := db.Session(&gorm.Session{DryRun: true}).Limit(2).Offset(1).Find(&[]book{}).Statement
	require.Contains(t, dry.SQL.String(), "LIMIT 2 OFFSET 1", "the planner sees the numbers")
	require.Empty(t, dry.Vars)
}

func TestJoinsAndRows(t *testing.T) {
	t.Parallel()
	db := library(t, "one", "two")
	rows, err := db.Table("`select` a").Select("a.id,b.`order`").Joins("JOIN `select` b ON b.id=a.id+?", 1).Where("a.copies=?", 1).Rows()
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	require.True(t, rows.Next())
	var (
		id    int64
		title string
	)
	require.NoError(t, rows.Scan(&id, &title))
	require.Equal(t, "1 two", string(rune('0'+id))+" "+title)
	require.False(t, rows.Next())
	require.NoError(t, rows.Err())
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	db := library(t, "one")
	require.Error(t, db.Create(&book{Order: "one", Copies: 1}).Error)

	r := db.Clauses(clause.OnConflict{DoNothing: true}).Create(&book{ID: 2, Order: "one", Copies: 1})
	require.NoError(t, r.Error)
	require.Zero(t, r.RowsAffected)

	other := clause.OnConflict{Columns: []clause.Column{{Name: "order"}}, DoUpdates: clause.AssignmentColumns([]string{"copies"})}
	require.NoError(t, db.Clauses(other).Create(&book{ID: 2, Order: "one", Copies: 8}).Error)
	var list []book
	require.NoError(t, db.Find(&list).Error)
	require.Equal(t, []book{{ID: 1, Order: "one", Copies: 8}}, list)

	require.NoError(t, db.Clauses(clause.Insert{Modifier: "OR REPLACE"}).Create(&book{ID: 3, Order: "one", Copies: 9}).Error)
	require.NoError(t, db.Find(&list).Error)
	require.Equal(t, []book{{ID: 3, Order: "one", Copies: 9}}, list)
}

func TestNames(t *testing.T) {
	t.Parallel()
	db := open(t)
	for name, want := range map[string]string{
		"id":           "`id`",
		"order":        "`order`",
		"t.id":         "`t`.`id`",
		"main.t.id":    "`main`.`t`.`id`",
		"a b":          "`a b`",
		`a"b`:          "`a\"b`",
		"a`b":          "`a``b`",
		"`a`":          "```a```",
		"x`;DROP y;--": "`x``;DROP y;--`",
		"":             "``",
	} {
		require.Equal(t, want, db.Statement.Quote(name), name)
	}
	// SQLite agrees, and takes a name that it does not know for an error.
	odd := "o'dd \"na`me;--"
	require.NoError(t, db.Exec("CREATE TABLE odd ("+db.Statement.Quote(odd)+" TEXT)").Error)
	require.NoError(t, db.Table("odd").Create(map[string]any{odd: "x"}).Error)
	var n int64
	require.NoError(t, db.Table("odd").Where(map[string]any{odd: "x"}).Count(&n).Error)
	require.EqualValues(t, 1, n)
	require.Error(t, db.Table("odd").Where(map[string]any{"unknown": "unknown"}).Count(&n).Error)
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	db := open(t)
	err := db.Transaction(func(x *gorm.DB) error {
		require.NoError(t, x.Create(&book{Order: "one", Copies: 1}).Error)
		return sql.ErrTxDone
	})
	require.ErrorIs(t, err, sql.ErrTxDone)
	require.Empty(t, titles(t, db))
}

func TestExplain(t *testing.T) {
	t.Parallel()
	db := open(t)
	got := db.ToSQL(func(x *gorm.DB) *gorm.DB {
		return x.Where("`order`=? AND copies>?", "it's", 2).Limit(1).Find(&[]book{})
	})
	require.Equal(t, "SELECT * FROM `select` WHERE `order`='it''s' AND copies>2 LIMIT 1", got)
}

func TestThereAreNoMigrations(t *testing.T) {
	t.Parallel()
	db := open(t)
	require.Panics(t, func() { _ = db.AutoMigrate(&book{}) })
}
