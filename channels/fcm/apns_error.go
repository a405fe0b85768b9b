package fcm

import (
	"net/http"

	"github.com/carillonhq/carillon/channels"
)

// apnsError is the verdict on what Apple said behind FCM, which FCM passes on as
// google.firebase.fcm.v1.ApnsError in the details of INVALID_ARGUMENT and other
// codes. The outcomes are those of the APNs channel, with two differences: what
// ends a device is in doubt, because the APNs key and the environment are
// Firebase's settings, and what is about that key is never Denied, because
// Android is reached without it. False: there is none, or one that says nothing.
func (f failure) apnsError() (channels.Result, bool) {
	for _, d := range f.Error.Details {
		if d.is("google.firebase.fcm.v1.ApnsError") {
			return apnsVerdict(d.Reason, d.StatusCode)
		}
	}
	return channels.Result{}, false
}

func apnsVerdict(reason string, status int) (channels.Result, bool) {
	switch reason {
	case "BadDeviceToken":
		return apnsGone("fcm.apns_bad_device_token", "Apple does not know the APNs token behind this FCM token in the environment that Firebase uses."), true
	case "DeviceTokenNotForTopic":
		return apnsGone("fcm.apns_device_token_not_for_topic", "The APNs token behind this FCM token belongs to another bundle id."), true
	case "Unregistered":
		return apnsGone("fcm.apns_unregistered", "The app was removed from the device."), true
	case "ExpiredToken":
		return apnsGone("fcm.apns_expired_token", "The APNs token behind this FCM token has expired."), true
	case "TooManyRequests":
		return channels.Result{Outcome: channels.Throttled, Code: "fcm.device_quota", Detail: "Apple got too many messages for this device.", Floor: floorQuota}, true
	case "TooManyProviderTokenUpdates", "InternalServerError", "ServiceUnavailable", "Shutdown", "IdleTimeout":
		return channels.Result{Outcome: channels.Retry, Code: "fcm.apns_unavailable", Detail: "Apple could not take the message from Firebase.", Floor: floorError}, true
	case "BadTopic", "MissingTopic", "TopicDisallowed", "BadCertificate", "BadCertificateEnvironment", "InvalidProviderToken",
		"MissingProviderToken", "ExpiredProviderToken", "UnrelatedKeyIdInToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return thirdPartyAuth(), true
	case "BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "InvalidPushType", "DuplicateHeaders", "PayloadEmpty",
		"PayloadTooLarge", "MissingDeviceToken", "Forbidden", "BadPath", "MethodNotAllowed":
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.apns_refused", Detail: "Apple refused the message: " + reason + "."}, true
	}
	if status == http.StatusGone {
		return apnsGone("fcm.apns_gone", "Apple does not know the APNs token behind this FCM token any more."), true
	}
	return channels.Result{}, false
}

func apnsGone(code, detail string) channels.Result {
	return channels.Result{Outcome: channels.Gone, Doubtful: true, Code: code, Detail: detail}
}

// thirdPartyAuth is never Denied: only Apple and web devices behind FCM are
// affected, and a hold on the credential would stop Android as well.
func thirdPartyAuth() channels.Result {
	return channels.Result{Outcome: channels.Rejected, Code: codeThirdParty,
		Detail: "Apple or the web push service refused the key that is stored in the Firebase project; renew it in the Firebase console under Cloud Messaging."}
}
