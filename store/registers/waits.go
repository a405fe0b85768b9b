package registers

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
)

// ForgetWaits ends the trouble of all of a credential, or of an endpoint.
const ForgetWaits = "DELETE FROM waits WHERE tenant_id=? AND subject_id=?"

// releaseAll ends what a credential or an endpoint waits for, because a person says so
// or it is another URL, and brings forward all that waits for it.
func releaseAll(t *db.Tx, tenant ids.ID, k channels.Kind, subject ids.ID, actor string) error {
	if err := t.Exec(ForgetWaits, tenant, subject); err != nil {
		return err
	}
	s := BringOf(delivery.Wait{Channel: k, Subject: subject})
	s.Released = true
	return BringForward(t, tenant, s, actor)
}

// releaseWaiting does the same where there is trouble that is known.
func releaseWaiting(t *db.Tx, tenant ids.ID, k channels.Kind, subject ids.ID, actor string) error {
	n, err := t.Count("SELECT count(*) FROM waits WHERE tenant_id=? AND subject_id=?", tenant, subject)
	if err != nil || n == 0 {
		return err
	}
	return releaseAll(t, tenant, k, subject, actor)
}

// BringSpec is the spec of jobs.BringForward: one scope.
type BringSpec struct {
	Credential  string `json:"credential,omitempty"`
	PushService string `json:"push_service,omitempty"` // ""; all of the credential
	Endpoint    string `json:"endpoint,omitempty"`
	// Released: what the provider asked for counts no more. Otherwise it counts for each
	// delivery that was told so itself.
	Released bool `json:"released,omitempty"`
}

// BringOf names the scope of a wait.
func BringOf(w delivery.Wait) BringSpec {
	if w.Channel == channels.Webhook {
		return BringSpec{Endpoint: w.Subject.Format(ids.Endpoint)}
	}
	return BringSpec{Credential: w.Subject.Format(ids.Credential), PushService: w.Origin}
}

// sameBring finds a job that has the same to do and has not begun.
const sameBring = `SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE tenant_id=? AND kind=? AND state<3 AND state=1 AND spec=?`

// BringForward makes the job that makes due what waits for a scope, unless there is
// one that has not begun. One that has does not look at what was put off since: it ends,
// so that a scope that comes and goes has one job at a time.
func BringForward(t *db.Tx, tenant ids.ID, s BringSpec, actor string) error {
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	there, err := t.Count(sameBring, tenant, jobs.BringForward, string(spec))
	if err != nil || there > 0 {
		return err
	}
	subject := s.Credential + s.Endpoint
	return CreateJob(t, jobs.Job{ID: t.NextID(), Tenant: tenant, Kind: jobs.BringForward, Spec: spec, Actor: actor, CreatedAt: t.Now()}, subject)
}

// WaitKey is a kind of trouble.
type WaitKey struct {
	Channel channels.Kind
	Cause   delivery.WaitCause
}

// WaitCounts counts the scopes of all tenants that are in trouble, for metrics.
func (s *installation) WaitCounts(ctx context.Context) (map[WaitKey]int, error) {
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT channel,cause,count(*) FROM waits GROUP BY channel,cause`)
	if err != nil {
		return nil, err
	}
	out := map[WaitKey]int{}
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			k WaitKey
			n int
		)
		err = r.Scan(&k.Channel, &k.Cause, &n)
		out[k] = n
		return none, err
	})
	return out, err
}
