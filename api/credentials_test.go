package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestACredentialIsPutAsTheQuerySays(t *testing.T) {
	t.Parallel()
	w := setup(t)
	put := func(query string) tenants.PutCredential {
		t.Helper()
		c := jsonIn[Credential](t, w.do(t, request{method: "PUT", path: "/v1/apps/default/credentials/fcm" + query, key: keyAdmin, body: `{"a":1}`}), 200)
		require.Equal(t, "not_checked", c.Verification.Status)
		return w.tenants.put
	}
	p := put("")
	require.False(t, p.Unverified || p.AutoRollback || p.Compromised, "verified unless the caller says otherwise")
	p = put("?verify=false&auto_rollback=true&compromised=true")
	require.True(t, p.Unverified && p.AutoRollback && p.Compromised)
}

func TestVersionsAreListedAndGoneBackTo(t *testing.T) {
	t.Parallel()
	w := setup(t)
	path := "/v1/credentials/" + theCredential.Format(ids.Credential)
	list := jsonIn[List[CredentialVersion]](t, w.do(t, get(path+"/versions", keyAdmin)), 200)
	require.Len(t, list.Data, 2)
	require.Equal(t, Verification{Status: "unverified", CheckedAt: epoch, Code: "transport.timeout"}, list.Data[0].Verification)
	require.True(t, list.Data[0].Current && list.Data[0].Kept && list.Data[0].AutoRollback)
	require.JSONEq(t, "{}", string(list.Data[0].Settings))
	back := func(query, body string) tenants.Rollback {
		t.Helper()
		jsonIn[Credential](t, w.do(t, request{method: "POST", path: path + "/rollback" + query, key: keyAdmin, body: body}), 200)
		return w.tenants.rollback
	}
	require.Equal(t, tenants.Rollback{}, back("", ""))
	require.Equal(t, tenants.Rollback{Version: 3, Unverified: true}, back("?verify=false", `{"version":3}`))
	for _, version := range []string{"0", "-1"} {
		p := problemIn(t, w.do(t, request{method: "POST", path: path + "/rollback", key: keyAdmin, body: `{"version":` + version + `}`}))
		require.Equal(t, "version", p.Errors[0].Path)
		require.Contains(t, p.Errors[0].Detail, "leave it out")
	}
}

// TestAPutMayBeRehearsed: it is verified, and nothing is stored.
func TestAPutMayBeRehearsed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.affected = delivery.Affected{Devices: 500, Waiting: 3}
	put := func(app string) Affected {
		return jsonIn[Affected](t, w.do(t, request{method: "PUT", path: "/v1/apps/" + app + "/credentials/webpush?dry_run=true", key: keyAdmin, body: `{"a":1}`}), 200)
	}
	said := &Verification{Status: "unverified", Code: "transport.timeout", CheckedAt: epoch}
	require.Equal(t, Affected{DryRun: true, Devices: 500, Waiting: 3, Verification: said}, put("default"))
	require.Equal(t, Affected{DryRun: true, Verification: said}, put("new"), "nobody is served by it yet")
	require.NotContains(t, w.did, "put credential")
}

func TestACredentialIsVerifiedOnRequest(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := jsonIn[Credential](t, w.do(t, request{method: "POST", path: "/v1/credentials/" + theCredential.Format(ids.Credential) + "/verify", key: keyAdmin}), 200)
	require.Equal(t, Verification{Status: "not_verifiable", Detail: "It cannot be asked.", CheckedAt: epoch}, c.Verification)
	require.Equal(t, []string{"verify credential"}, w.did)
}
