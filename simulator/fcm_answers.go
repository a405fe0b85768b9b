package simulator

import (
	"net/http"
	"strconv"
	"strings"
)

// Reasons that are ours: FCM has no code of its own for these cases.
const (
	invalidToken    = "INVALID_TOKEN"     // INVALID_ARGUMENT that blames message.token
	payloadTooLarge = "PAYLOAD_TOO_LARGE" // INVALID_ARGUMENT without any details
	projectQuota    = "PROJECT_QUOTA"     // QUOTA_EXCEEDED whose QuotaFailure names the project
	someQuota       = "SOME_QUOTA"        // RESOURCE_EXHAUSTED without a word about whose
)

const (
	htmlNotFound = "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title><p><b>404.</b> <ins>That's an error.</ins>\n"
	htmlGateway  = "<!DOCTYPE html><html lang=en><title>Error (Server Error)!!1</title><p><b>Server Error.</b> Please try again in 30 seconds.\n"
)

// googleError is an error in Google's form. details are JSON objects.
func googleError(status int, reason, message, statusName string, details ...string) answer {
	b := make([]byte, 0, 512)
	b = append(b, `{"error":{"code":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, `,"message":`...)
	b = appendQuoted(b, message)
	b = append(b, `,"status":"`...)
	b = append(b, statusName...)
	b = append(b, '"')
	if len(details) > 0 {
		b = append(b, `,"details":[`...)
		b = append(b, strings.Join(details, ",")...)
		b = append(b, ']')
	}
	b = append(b, "}}\n"...)
	return answer{status: status, reason: reason, detail: message, kind: jsonKind, body: b}
}

func fcmError(code string) string {
	return `{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"` + code + `"}`
}

func badRequest(field, description string) string {
	b := []byte(`{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":`)
	b = appendQuoted(b, field)
	b = append(b, `,"description":`...)
	b = appendQuoted(b, description)
	return string(append(b, "}]}"...))
}

// invalidArgument blames the request as a whole; FcmError alone is in the details.
func invalidArgument(message string) answer {
	return googleError(http.StatusBadRequest, "INVALID_ARGUMENT", message, "INVALID_ARGUMENT", fcmError("INVALID_ARGUMENT"))
}

// invalidField blames one field.
func invalidField(field, description string) answer {
	a := googleError(http.StatusBadRequest, "INVALID_ARGUMENT", description, "INVALID_ARGUMENT",
		badRequest(field, description), fcmError("INVALID_ARGUMENT"))
	a.detail = field + ": " + description
	return a
}

// invalidType is the JSON parser's answer: BadRequest without FcmError.
func invalidType(field, message string) answer {
	return googleError(http.StatusBadRequest, "INVALID_ARGUMENT", message, "INVALID_ARGUMENT", badRequest(field, message))
}

func tooLarge(detail string) answer {
	a := googleError(http.StatusBadRequest, payloadTooLarge, "Request contains an invalid argument.", "INVALID_ARGUMENT")
	a.detail = detail
	return a
}

func permissionDenied(project string) answer {
	return googleError(http.StatusForbidden, "PERMISSION_DENIED",
		"Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/projects/"+
			project+"' (or it may not exist).", "PERMISSION_DENIED")
}

// refuseFCM words a fault as Google does.
func refuseFCM(f Fault) answer {
	reason := f.Reason
	if reason == "" {
		reason = usualFCMReason(f.Status)
	}
	switch reason {
	case invalidToken:
		return googleError(f.Status, reason, "The registration token is not a valid FCM registration token", "INVALID_ARGUMENT",
			fcmError("INVALID_ARGUMENT"), badRequest("message.token", "Invalid registration token"))
	case "INVALID_ARGUMENT":
		return googleError(f.Status, reason, "Request contains an invalid argument.", reason, fcmError(reason),
			badRequest("message.android.ttl", "Invalid value"))
	case payloadTooLarge:
		return tooLarge("A fault was asked for.")
	case "THIRD_PARTY_AUTH_ERROR":
		return googleError(f.Status, reason, "Auth error from APNS or Web Push Service", "UNAUTHENTICATED", fcmError(reason))
	case "UNAUTHENTICATED":
		return googleError(f.Status, reason, "Request had invalid authentication credentials. Expected OAuth 2 access token, "+
			"login cookie or other valid authentication credential.", reason)
	case "SENDER_ID_MISMATCH":
		return googleError(f.Status, reason, "SenderId mismatch", "PERMISSION_DENIED", fcmError(reason))
	case "PERMISSION_DENIED":
		return permissionDenied("p")
	case "UNREGISTERED":
		return googleError(f.Status, reason, "Requested entity was not found.", "NOT_FOUND", fcmError(reason))
	case "QUOTA_EXCEEDED":
		return googleError(f.Status, reason, "Message rate quota exceeded.", "RESOURCE_EXHAUSTED", fcmError(reason),
			`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"token:simulated","description":"Device message rate exceeded"}]}`)
	case projectQuota:
		details := []string{fcmError("QUOTA_EXCEEDED"),
			`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"project:simulated","description":"Project message rate exceeded"}]}`}
		if f.RetryAfter > 0 {
			details = append(details, `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"`+strconv.Itoa(int(f.RetryAfter.Seconds()))+`s"}`)
		}
		return googleError(f.Status, reason, "Message rate quota exceeded.", "RESOURCE_EXHAUSTED", details...)
	case someQuota:
		return googleError(f.Status, reason, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED")
	case "RATE_LIMIT_EXCEEDED":
		return googleError(f.Status, reason, "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of "+
			"service 'fcm.googleapis.com' for consumer 'project_number:1'.", "RESOURCE_EXHAUSTED",
			`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com","metadata":`+
				`{"service":"fcm.googleapis.com","consumer":"projects/1","quota_metric":"fcm.googleapis.com/send_requests",`+
				`"quota_limit":"SendsPerMinutePerProject","quota_unit":"1/min/{project}"}}`,
			`{"@type":"type.googleapis.com/google.rpc.Help","links":[]}`)
	case "INTERNAL":
		return googleError(f.Status, reason, "Internal error encountered.", reason, fcmError(reason))
	case "UNAVAILABLE":
		return googleError(f.Status, reason, "The service is currently unavailable.", reason, fcmError(reason))
	case "":
		return answer{status: f.Status, kind: "text/html; charset=UTF-8", body: []byte(htmlGateway)}
	}
	if reasonNumber(reason) > 0 { // Apple's, behind FCM
		return googleError(f.Status, reason, "Request contains an invalid argument.", "INVALID_ARGUMENT", fcmError("INVALID_ARGUMENT"),
			`{"@type":"type.googleapis.com/google.firebase.fcm.v1.ApnsError","statusCode":`+strconv.Itoa(apnsReasons()[reasonNumber(reason)].status)+`,"reason":"`+reason+`"}`)
	}
	return googleError(f.Status, reason, "Error "+reason+".", reason, fcmError(reason))
}

func usualFCMReason(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "INVALID_ARGUMENT"
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED"
	case http.StatusForbidden:
		return "PERMISSION_DENIED"
	case http.StatusNotFound:
		return "UNREGISTERED"
	case http.StatusTooManyRequests:
		return "QUOTA_EXCEEDED"
	case http.StatusInternalServerError:
		return "INTERNAL"
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	}
	return "" // an HTML page of the front end
}
