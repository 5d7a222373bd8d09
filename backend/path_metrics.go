package backend

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"
)

func (b *backend) pathMetrics() *framework.Path {
	return &framework.Path{
		Pattern:      "metrics",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.edge(b.readMetrics),
				Summary:  "Read the engine's metrics, as text that Prometheus reads.",
				Responses: map[int][]framework.Response{http.StatusOK: {{
					Description: "The metrics.", MediaType: metricsType, Fields: map[string]*framework.FieldSchema{},
					Example: &logical.Response{Data: map[string]any{logical.HTTPRawBody: "# HELP vault_jira_mints_total Credentials that readers asked for, by role and how that went.\n# TYPE vault_jira_mints_total counter\nvault_jira_mints_total{result=\"success\",role=\"readonly\"} 3\n"}},
				}}},
				ForwardPerformanceStandby:   true, // what is counted is on the active node
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "metrics"},
			},
		},
		HelpSynopsis: "What the engine counts of itself, for Prometheus.",
		HelpDescription: strings.TrimSpace(`
Answers with text that Prometheus reads, to whoever Vault lets read it. Counters begin
anew when the engine starts, and when another node of Vault becomes the active one.
`),
	}
}

// metricsType is the version of the text that Prometheus has read from the beginning.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

func (b *backend) readMetrics(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	families, err := b.metrics.registry.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, err
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType: metricsType,
		logical.HTTPRawBody:     text.Bytes(),
		logical.HTTPStatusCode:  http.StatusOK,
	}}, nil
}
