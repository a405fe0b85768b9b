package main

import (
	"crypto/x509"
	"fmt"
	"os"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/apns"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/channels/fcm"
	"github.com/carillonhq/carillon/channels/webhook"
	"github.com/carillonhq/carillon/channels/webpush"
)

// newChannels makes the channels: the one place that knows them all.
func newChannels(cfg Config) (map[channels.Kind]channels.Channel, error) {
	var roots *x509.CertPool
	if cfg.APNs.CAFile != "" {
		pem, err := os.ReadFile(cfg.APNs.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read channels.apns.ca_file: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("channels.apns.ca_file: %s holds no PEM certificate", cfg.APNs.CAFile)
		}
	}
	list := []channels.Channel{
		fcm.New(fcm.Options{Endpoint: cfg.FCM.Endpoint, TokenURIs: cfg.FCM.TokenURIs}),
		apns.New(apns.Options{ProductionURL: cfg.APNs.ProductionURL, SandboxURL: cfg.APNs.SandboxURL, RootCAs: roots}),
		webpush.New(webpush.Options{Hosts: cfg.WebPush.Hosts, AnyHost: cfg.WebPush.AnyHost, Rules: cfg.WebPush.rules(),
			Limits: egress.Limits{Timeout: cfg.WebPush.Timeout}}),
		webhook.New(webhook.Options{Rules: cfg.Webhook.rules(), Limits: egress.Limits{Timeout: cfg.Webhook.Timeout},
			UserAgent: "Carillon/" + versionText()}),
	}
	all := map[channels.Kind]channels.Channel{}
	for _, c := range list {
		all[c.Kind()] = c
	}
	return all, nil
}
