package registers

import (
	"context"

	"gorm.io/gorm"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// newest pages a tenant's rows from the newest id.
func newest(ctx context.Context, d *db.DB, tenant ids.ID, p tenants.Page) *gorm.DB {
	q := d.Gorm(ctx).Where("tenant_id=?", tenant).Order("id DESC").Limit(p.Limit)
	if p.After != 0 {
		q = q.Where("id<?", p.After)
	}
	return q
}

// take reads one model, or NotFound.
func take[M any](ctx context.Context, d *db.DB, what, where string, args ...any) (M, error) {
	var list []M
	err := d.Gorm(ctx).Where(where, args...).Limit(1).Find(&list).Error
	if err == nil && len(list) == 0 {
		err = problem.New(problem.NotFound, "There is no such %s.", what)
	}
	if err != nil {
		var zero M
		return zero, err
	}
	return list[0], nil
}

func convert[M, T any](list []M, f func(M) (T, error)) ([]T, error) {
	out := make([]T, len(list))
	for i, m := range list {
		v, err := f(m)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}
