// Package simulator plays the other side of every channel: FCM with its OAuth
// endpoint, APNs over HTTP/2, a web push service that decrypts, and a webhook
// receiver. The whole path of a notification then runs offline, in tests and on
// a laptop (`carillon simulate`). It checks requests as strictly as the
// providers do, answers with their statuses and bodies, counts everything and
// fails on demand.
//
// # Where things are
//
// The plain port speaks HTTP/1.1; the TLS port speaks HTTP/2 and HTTP/1.1 and
// serves the same paths besides APNs, so https webhooks can be tried too.
//
//	POST /v1/projects/{project}/messages:send   FCM
//	POST /token                                 Google's OAuth token endpoint
//	POST /3/device/{token}                      APNs (TLS ports only; the sandbox has its own)
//	POST /wpush/{id}[/sim-...]                  push service, endpoints of subscriptions
//	GET  /push                                  WebSocket for Firefox's dom.push.serverURL
//	POST /hook/{name}                           webhook receiver, any name
//	GET  /                                      a page for people
//	GET  /report.json                           Report
//	GET  /arrivals.json?channel=&target=&delivery=&limit=   [Arrival, ...], oldest first
//	GET  /access.json                           Access: addresses and credentials
//	GET  /tokens.json?channel=&fault=&push_type=&count=     ["sim-503x2-n1", ...]
//	GET  /faults                                {"<target>": FaultJSON, ...}
//	POST /faults                                FaultJSON with "target"
//	DELETE /faults[?target=]                    one, or all
//	POST /subscriptions                         {"vapid_key","fault","count"} -> [Subscription, ...]
//	POST /secrets                               {"name","secrets":["whsec_..."]}
//	POST /reset                                 forgets arrivals, counts and how often faults were served
//
// # Faults
//
// A fault is asked for by the address itself, so that a sender needs no special
// build. It strikes only requests that would have been accepted: a request with
// a mistake in it gets the provider's answer to the mistake. The text form is
//
//	sim-<what>[x<times>][-<retry after>][-slow-<latency>][-reset][-cut][-<anything>]
//
// as an FCM token, installation id or topic, as the name of a webhook receiver,
// or appended to a push endpoint (".../wpush/<id>/sim-410"). <what> is a status
// from 200 to 599 or one of the words below; each part may be left out. The
// first part that is not understood, or that says a thing again, begins the
// free text that tells targets apart. x2 means: the first two requests for this
// address, then all is well.
//
//	sim-ok-anna              accepted
//	sim-503x2-anna           twice 503, then accepted
//	sim-429-30s              always 429 with Retry-After: 30
//	sim-slow-250ms           accepted after 250 ms
//	sim-reset                the request is read, then the connection is reset
//	sim-cut                  accepted, but the answer's body breaks off
//	sim-unregistered         the address is gone
//
//	word           fcm                           apns                        webpush              webhook
//	unregistered   404 UNREGISTERED              410 Unregistered            410                  410
//	gone           the same as unregistered
//	invalid        400 INVALID_TOKEN             400 BadDeviceToken          404                  404
//	sender         403 SENDER_ID_MISMATCH        400 DeviceTokenNotForTopic  403 VAPID_MISMATCH   403
//	auth           401 UNAUTHENTICATED           403 InvalidProviderToken    401                  401
//	forbidden      403 PERMISSION_DENIED         403 Forbidden               403                  403
//	thirdparty     401 THIRD_PARTY_AUTH_ERROR    403 BadCertificate          403                  403
//	quota          429 QUOTA_EXCEEDED            429 TooManyRequests         429                  429
//	projectquota   429 RATE_LIMIT_EXCEEDED       429 TooManyRequests         429                  429
//	apnstoken      400 BadDeviceToken            400 BadDeviceToken          404                  404
//	toolarge       400 PAYLOAD_TOO_LARGE         413 PayloadTooLarge         413                  413
//
// APNs tokens are hexadecimal, so a fault is a code of decimal digits in front:
//
//	5e SSS TTT RR AAAAA LLLLLL F E 0 UUUUUUUUUU ...
//	   |   |   |  |     |      | |   time of a 410 in Unix seconds, 0: now
//	   |   |   |  |     |      | 0 production, 1 sandbox
//	   |   |   |  |     |      0 none, 1 reset, 2 cut, 3 both
//	   |   |   |  |     latency in milliseconds
//	   |   |   |  Retry-After in seconds
//	   |   |   number of the reason, 00: the usual one of the status
//	   |   times, 000: always
//	   status, 000: as usual
//
// so that "5e503002" and 56 zeros is twice 503. Other tokens belong to
// production, except those that begin with 5adb0c5: they belong to the sandbox,
// and production answers BadDeviceToken. Nobody needs to know any of this:
// Token builds the address for a Fault on any channel.
//
// SetFault (POST /faults) does the same to an address as it is, or to a whole
// channel by its name: fcm, oauth, apns, webpush, webhook.
package simulator
