package simulator

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	fcmPath    = "/v1/projects/"
	sendSuffix = "/messages:send"
	jsonKind   = "application/json; charset=UTF-8"
	// bodyLimit bounds what is read of any request to FCM or a webhook receiver.
	bodyLimit = 1 << 20
)

// fcmService is FCM HTTP v1 with its OAuth endpoint.
type fcmService struct {
	core           *core
	project        string
	plain, overTLS string // base URLs
	serial         atomic.Uint64
	issued         sync.Map // access token -> access
	mu             sync.RWMutex
	accounts       map[string]*account // by client_email
	defaultAccount func() []byte
}

func newFCMService(c *core, project, plain, overTLS string) *fcmService {
	f := &fcmService{core: c, project: project, plain: plain, overTLS: overTLS, accounts: map[string]*account{}}
	// An RSA key takes a tenth of a second or more, so it is made when first wanted.
	f.defaultAccount = sync.OnceValue(func() []byte { return f.newServiceAccount(project) })
	return f
}

// FCMAccess is what a sender needs to use the simulated FCM.
type FCMAccess struct {
	Project        string // of ServiceAccount
	URL            string // stands for https://fcm.googleapis.com, without a slash at the end
	TLSURL         string // the same with TLS and HTTP/2
	TokenURI       string // OAuth token endpoint
	ServiceAccount []byte // key file; its token_uri is TokenURI

	service *fcmService
}

// FCM tells how to reach the simulated FCM. The first call makes an RSA key,
// which takes a tenth of a second or so.
func (s *Simulator) FCM() FCMAccess {
	return FCMAccess{Project: s.fcm.project, URL: s.fcm.plain, TLSURL: s.fcm.overTLS, TokenURI: s.fcm.plain + tokenPath,
		ServiceAccount: s.fcm.defaultAccount(), service: s.fcm}
}

// NewServiceAccount makes another key file, for the same or another project.
func (a FCMAccess) NewServiceAccount(project string) []byte {
	return a.service.newServiceAccount(project)
}

// Register makes a key good for a service account that was made elsewhere. kid
// is its private_key_id.
func (a FCMAccess) Register(email, project, kid string, key *rsa.PublicKey) {
	a.service.register(email, project, kid, key)
}

// Revoke deletes the service account of a key file: its access tokens are
// refused at once, and new ones are not given out.
func (a FCMAccess) Revoke(serviceAccount []byte) error {
	var file struct {
		Email string `json:"client_email"`
	}
	if err := json.Unmarshal(serviceAccount, &file); err != nil {
		return fmt.Errorf("the service account is not JSON: %w", err)
	}
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	delete(a.service.accounts, file.Email)
	return nil
}

// ExpireTokens makes every access token that was given out worthless.
func (a FCMAccess) ExpireTokens() { a.service.issued.Clear() }

func (f *fcmService) newServiceAccount(project string) []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("simulator: " + err.Error()) // only an illegal size can fail
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("simulator: " + err.Error()) // an RSA key always encodes
	}
	sum := sha1.Sum(der)
	kid := hex.EncodeToString(sum[:])
	email := "sim-" + kid[:8] + "@" + project + ".iam.gserviceaccount.com"
	f.register(email, project, kid, &key.PublicKey)
	return serviceAccountJSON(project, email, kid, f.plain+tokenPath,
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// serveSend is projects.messages.send.
func (f *fcmService) serveSend(p *port, w http.ResponseWriter, r *http.Request) {
	x := &exchange{channel: FCM, refuse: refuseFCM}
	x.answer = f.judge(x, r)
	f.core.respond(p, w, r, x)
}

func (f *fcmService) judge(x *exchange, r *http.Request) answer {
	project, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, fcmPath), sendSuffix)
	if !ok || project == "" || strings.Contains(project, "/") {
		return answer{status: http.StatusNotFound, reason: "NOT_FOUND", kind: "text/html; charset=UTF-8",
			detail: "Only " + fcmPath + "{project}" + sendSuffix + " exists.", body: []byte(htmlNotFound)}
	}
	if r.Method != http.MethodPost {
		return answer{status: http.StatusMethodNotAllowed, reason: "METHOD_NOT_ALLOWED", kind: "text/html; charset=UTF-8",
			detail: "Use POST.", body: []byte(htmlNotFound)}
	}
	body, err := readBody(r, bodyLimit)
	x.payload = body
	if err != nil {
		return invalidArgument("Request body could not be read.")
	}
	who, ok := f.bearer(r)
	if !ok {
		return refuseFCM(Fault{Status: http.StatusUnauthorized})
	}
	if !who.messaging {
		return googleError(http.StatusForbidden, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "Request had insufficient authentication scopes.",
			"PERMISSION_DENIED", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_SCOPE_INSUFFICIENT","domain":"googleapis.com"}`)
	}
	if who.project != project {
		return permissionDenied(project)
	}
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return invalidArgument("Content-Type must be application/json.")
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte{'{'}) {
		return invalidArgument("Invalid JSON payload received. Unexpected token.")
	}
	req, refused := parseSend(body)
	if req == nil {
		return refused
	}
	x.target = req.Message.target()
	x.delivery = req.Message.Data[carillonKey]
	x.askFor(strings.TrimPrefix(x.target, topicPrefix))
	if refused, bad := req.Message.check(); bad {
		return refused
	}
	return f.accept(project, req.ValidateOnly)
}

// accept answers with a message name in Google's form.
func (f *fcmService) accept(project string, validateOnly bool) answer {
	a := answer{status: http.StatusOK, accepted: true, kind: jsonKind}
	name := make([]byte, 0, 128)
	name = append(name, "{\n  \"name\": \"projects/"...)
	name = append(name, project...)
	name = append(name, "/messages/"...)
	if validateOnly {
		a.accepted, a.reason = false, "validate_only"
		name = append(name, "fake_message_id"...)
	} else {
		name = append(name, "0:"...)
		name = strconv.AppendInt(name, f.core.now().UnixMicro(), 10)
		name = append(name, '%')
		name = strconv.AppendUint(name, f.serial.Add(1)|1<<60, 16)
	}
	name = append(name, "\"\n}\n"...)
	a.body = name
	return a
}
