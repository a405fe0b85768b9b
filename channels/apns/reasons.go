package apns

import (
	"time"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
)

// The least waits that Apple's rules ask for ("Handling notification responses
// from APNs").
const (
	serverPause  = 10 * time.Second // 500, 503
	devicePause  = time.Minute      // TooManyRequests: for the same device
	updatesPause = tokenMinimum     // TooManyProviderTokenUpdates
)

// Reasons that apns2 does not name.
const (
	reasonUnrelatedKey = "UnrelatedKeyIdInToken"
	reasonEnvKeyID     = "BadEnvironmentKeyIdInToken"
	reasonEnvKey       = "BadEnvironmentKeyInToken" // the same, as seen on the wire
)

// byReason knows Apple's table of reasons. False: not in it.
func (v *verdict) byReason(a reply, c circumstances) bool {
	switch a.reason {
	case apns2.ReasonBadDeviceToken, apns2.ReasonDeviceTokenNotForTopic, apns2.ReasonUnregistered, apns2.ReasonExpiredToken:
		v.aboutDevice(a, c)
	case apns2.ReasonTooManyRequests:
		v.set(channels.Throttled, channels.ScopeTarget, "too_many_requests", "Too many notifications for this device in a row.")
		v.Floor = devicePause
	case apns2.ReasonInternalServerError:
		v.retryServer("internal_server_error", "APNs had an internal error.")
	case apns2.ReasonServiceUnavailable:
		v.retryServer("service_unavailable", "APNs is unavailable.")
	case apns2.ReasonShutdown:
		v.retryConnection(c, "shutdown", "The APNs server is shutting down.")
	case apns2.ReasonIdleTimeout:
		v.retryConnection(c, "idle_timeout", "APNs closed an idle connection.")
	default:
		return v.aboutCredential(a, c) || v.aboutMessage(a.reason)
	}
	return true
}

// aboutDevice judges the answers that end a device token's life.
func (v *verdict) aboutDevice(a reply, c circumstances) {
	switch a.reason {
	case apns2.ReasonBadDeviceToken:
		if c.tryOther {
			v.set(channels.Retry, channels.ScopeTarget, "bad_device_token", "Production does not know the token; the sandbox is tried next.")
			v.Renew = channels.RenewGateway
			return
		}
		v.set(channels.Gone, channels.ScopeTarget, "bad_device_token", "APNs does not know the device token in this environment.")
		v.Doubtful = true
	case apns2.ReasonDeviceTokenNotForTopic:
		if c.ownTopic {
			v.set(channels.Rejected, channels.ScopeTarget, "device_token_not_for_topic", "The device token is not for the topic that the message chose.")
			return
		}
		v.set(channels.Gone, channels.ScopeTarget, "device_token_not_for_topic", "The device token belongs to another bundle id.")
		v.Doubtful = true
	case apns2.ReasonUnregistered:
		v.gone(a, c, "unregistered", "The app was removed from the device.")
	default:
		v.gone(a, c, "expired_token", "The device token has expired.")
	}
}

// gone applies Apple's timestamp rule: a token that the app registered again
// after APNs last found it invalid is tried once more.
func (v *verdict) gone(a reply, c circumstances, code, detail string) {
	if !a.goneAt.IsZero() && !c.registeredAt.IsZero() && c.registeredAt.UnixMilli() >= a.goneAt.UnixMilli() {
		v.set(channels.Retry, channels.ScopeTarget, code, "APNs found the token invalid before the app registered it again.")
		v.MaxTries = 2
		return
	}
	v.set(channels.Gone, channels.ScopeTarget, code, detail)
}

// aboutCredential judges the answers that are about our key or configuration.
func (v *verdict) aboutCredential(a reply, c circumstances) bool {
	switch a.reason {
	case apns2.ReasonBadTopic:
		v.topic(c, "bad_topic", "APNs does not take the topic.")
	case apns2.ReasonMissingTopic:
		v.topic(c, "missing_topic", "APNs misses the topic.")
	case apns2.ReasonTopicDisallowed:
		v.topic(c, "topic_disallowed", "The key may not send to the topic.")
	case apns2.ReasonBadCertificate:
		v.deny("bad_certificate", "APNs does not take the certificate.")
	case apns2.ReasonBadCertificateEnvironment:
		v.deny("bad_certificate_environment", "The certificate is for the other environment.")
	case apns2.ReasonInvalidProviderToken:
		v.deny("invalid_provider_token", "APNs does not take the provider token: the key, key id and team id do not belong together, or the key was revoked.")
	case apns2.ReasonMissingProviderToken:
		v.deny("missing_provider_token", "APNs misses the provider token.")
	case reasonEnvKeyID, reasonEnvKey:
		v.environment(c)
	case apns2.ReasonExpiredProviderToken:
		v.renewOrDeny(c, channels.RenewToken, a.jwtNext, "expired_provider_token",
			"APNs calls the provider token expired; if this stays, check the server's clock.")
	case reasonUnrelatedKey:
		v.renewOrDeny(c, channels.RenewConnection, true, "unrelated_key_id_in_token",
			"The connection is bound to another key.")
		v.dropConn = true
	case apns2.ReasonTooManyProviderTokenUpdates:
		v.set(channels.Throttled, channels.ScopeCredential, "too_many_provider_token_updates", "APNs saw too many provider tokens of this key; do other servers sign with it?")
		v.Floor, v.dropConn = updatesPause, true
	default:
		return false
	}
	return true
}

// aboutMessage judges the answers that blame our request.
func (v *verdict) aboutMessage(reason string) bool {
	code := ""
	switch reason {
	case apns2.ReasonBadCollapseID:
		code = "bad_collapse_id"
	case apns2.ReasonBadExpirationDate:
		code = "bad_expiration_date"
	case apns2.ReasonBadMessageID:
		code = "bad_message_id"
	case apns2.ReasonBadPriority:
		code = "bad_priority"
	case apns2.ReasonInvalidPushType:
		code = "invalid_push_type"
	case apns2.ReasonDuplicateHeaders:
		code = "duplicate_headers"
	case apns2.ReasonPayloadEmpty:
		code = "payload_empty"
	case apns2.ReasonMissingDeviceToken:
		code = "missing_device_token"
	case apns2.ReasonForbidden:
		code = "forbidden"
	case apns2.ReasonBadPath:
		code = "bad_path"
	case apns2.ReasonMethodNotAllowed:
		code = "method_not_allowed"
	case apns2.ReasonPayloadTooLarge:
		code = "payload_too_large"
	default:
		return false
	}
	v.set(channels.Rejected, channels.ScopeTarget, code, "APNs refused the request: "+reason+".")
	return true
}

const codeEnvironment = "apns.bad_environment_key_id_in_token"

// environment judges the refusal of a key that Apple limits to the other
// gateway. It is about the key only if the other does not take it either.
func (v *verdict) environment(c circumstances) {
	const code, detail = "bad_environment_key_id_in_token", "The key is limited to the other environment."
	switch {
	case c.other == otherNone:
		v.deny(code, detail)
	case c.other == otherUnknown:
		v.set(channels.Retry, channels.ScopeTarget, code, "The key is limited to the other environment, which could not be asked about it.")
		v.Floor = serverPause
	case !c.auto:
		v.set(channels.Rejected, channels.ScopeTarget, "environment_mismatch", "Apple limits the key to the other environment than the device's.")
	case c.renewed == channels.RenewGateway: // it was tried here because the other does not know the token
		v.set(channels.Gone, channels.ScopeTarget, "bad_device_token", "APNs does not know the device token in the only environment of the key.")
		v.Doubtful = true
	default:
		v.set(channels.Retry, channels.ScopeTarget, code, "The key is limited to the other environment, where the device is tried next.")
		v.Renew = channels.RenewGateway
	}
}

func (v *verdict) deny(code, detail string) {
	v.set(channels.Denied, channels.ScopeCredential, code, detail)
}

// topic blames whoever chose the topic.
func (v *verdict) topic(c circumstances, code, detail string) {
	if c.ownTopic {
		v.set(channels.Rejected, channels.ScopeTarget, code, detail)
		return
	}
	v.deny(code, detail)
}

func (v *verdict) retryServer(code, detail string) {
	v.set(channels.Retry, channels.ScopeTarget, code, detail)
	v.Floor = serverPause
}

// retryConnection asks for a new connection at once; if that was just tried, it
// waits as for any server trouble.
func (v *verdict) retryConnection(c circumstances, code, detail string) {
	v.set(channels.Retry, channels.ScopeTarget, code, detail)
	v.dropConn = true
	if c.renewed == channels.RenewNothing {
		v.Renew = channels.RenewConnection
	} else {
		v.Floor = serverPause
	}
}

// renewOrDeny asks for one renewal. The same answer after it is final. After
// another renewal it is a retry that costs an attempt, since renewals are free
// and must not follow each other without end.
func (v *verdict) renewOrDeny(c circumstances, what channels.Renewal, possible bool, code, detail string) {
	if !possible || c.renewed == what {
		v.deny(code, detail)
		return
	}
	v.set(channels.Retry, channels.ScopeTarget, code, detail)
	if c.renewed == channels.RenewNothing {
		v.Renew = what
	}
}
