// Package registers keeps what a tenant has registered: the tenant itself, its
// apps, keys, credentials, devices and endpoints, its background jobs, and facts
// about the installation. It cleans them up, too.
package registers

import (
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// Holds are the queue's: a change of a credential or an endpoint opens some and
// ends some in the same transaction.
type Holds interface {
	// Open finds or opens a hold; opened: it did not stand before.
	Open(t *db.Tx, h delivery.Hold) (id ids.ID, opened bool, err error)
	// End starts the end of the holds that stand and match: tenant, scope and
	// subject, for missing credentials app and channel, and a reason unless it is 0.
	End(t *db.Tx, match delivery.Hold, e delivery.Ending) error
}

// Registers are all of them.
type Registers struct {
	*tenantRegister
	*keyRegister
	*credentialRegister
	*deviceRegister
	*endpointRegister
	*jobRegister
	*installation
	*cleanup
	*resealer
}

// New makes the registers of a database.
func New(d *db.DB, holds Holds) *Registers {
	j := &jobRegister{d}
	return &Registers{
		tenantRegister: &tenantRegister{d}, keyRegister: &keyRegister{d}, credentialRegister: &credentialRegister{d, holds, j},
		deviceRegister: &deviceRegister{d, j}, endpointRegister: &endpointRegister{db: d, holds: holds}, jobRegister: j,
		installation: &installation{d}, cleanup: &cleanup{d},
		resealer: &resealer{db: d, jobs: j},
	}
}
