package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
)

// dial is how connections to Jira are made; nil is the network's way.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// site returns the Jira that c describes, behind gate. Its errors are the
// operator's mistakes.
func (c *config) site(gate *jira.Gate, dial dial, observe func(method string, status int, took time.Duration)) (*jira.Site, error) {
	o := jira.Options{
		URL:           c.URL,
		TLSServerName: c.TLSServerName,
		TLSSkipVerify: c.TLSSkipVerify,
		Dial:          dial,
		Timeout:       time.Duration(c.RequestTimeout) * time.Second,
		Gate:          gate,
		Observe:       observe,
		UserAgent:     "vault-plugin-secrets-jira/" + Version,
	}
	switch c.TLSMinVersion {
	case "tls12":
		o.TLSMinVersion = tls.VersionTLS12
	case "tls13":
		o.TLSMinVersion = tls.VersionTLS13
	default:
		return nil, fault.Userf("tls_min_version %q is not known: write tls12 or tls13", c.TLSMinVersion)
	}
	for field, certificates := range map[string]string{"ca_cert": c.CACert, "client_cert": c.ClientCert} {
		if strings.Contains(certificates, "PRIVATE KEY") { // it would be read back
			return nil, fault.Userf("%s holds a private key: give certificates alone, and the key of client_cert as client_key", field)
		}
	}
	if c.CACert != "" {
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM([]byte(c.CACert)) {
			return nil, fault.Userf("ca_cert holds no PEM certificate: it starts with -----BEGIN CERTIFICATE-----")
		}
	}
	switch {
	case c.ClientCert != "" && c.ClientKey == "":
		return nil, fault.Userf("client_key is missing: client_cert needs one")
	case c.ClientKey != "" && c.ClientCert == "":
		return nil, fault.Userf("client_cert is missing: client_key needs one")
	case c.ClientCert != "":
		pair, err := tls.X509KeyPair([]byte(c.ClientCert), []byte(c.ClientKey))
		if err != nil {
			return nil, fault.Userf("client_cert and client_key do not fit: %v", err)
		}
		o.Certificates = []tls.Certificate{pair}
	}
	var err error
	if o.Proxy, err = c.proxy(); err != nil {
		return nil, err
	}
	site, err := jira.New(o)
	if err != nil {
		return nil, fault.Userf("url %v", err)
	}
	if strings.HasPrefix(site.URL(), "http:") && !c.AllowHTTP && !isLoopback(site.URL()) {
		return nil, fault.Userf("url is plain http: write https, or set allow_http=true if tokens may cross the network in the clear")
	}
	return site, nil
}

// way is what c says of how Jira is called, and nothing else.
func (c *config) way() config {
	return config{
		URL: c.URL, CACert: c.CACert, ClientCert: c.ClientCert, ClientKey: c.ClientKey,
		TLSServerName: c.TLSServerName, TLSMinVersion: c.TLSMinVersion, TLSSkipVerify: c.TLSSkipVerify,
		ProxyURL: c.ProxyURL, RequestTimeout: c.RequestTimeout,
	}
}

// proxy is nil where the environment decides.
func (c *config) proxy() (*url.URL, error) {
	if c.ProxyURL == "" {
		return nil, nil // as the sentence above says
	}
	// Not wrapped: the parser's error repeats its input, password and all.
	u, err := url.Parse(c.ProxyURL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
		return nil, fault.Userf("proxy_url is no URL of a proxy: write http://, https:// or socks5://, host and port, with nothing behind")
	}
	return u, nil
}

// isCloud tells whether a site is one of Atlassian's own hosts.
func isCloud(site string) bool {
	u, err := url.Parse(site)
	return err == nil && strings.HasSuffix(strings.ToLower(u.Hostname()), ".atlassian.net")
}

func isLoopback(site string) bool {
	u, err := url.Parse(site)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// redacted is a URL without the credentials it may hold. A name alone may be
// one.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	return u.String()
}
