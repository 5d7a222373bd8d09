package backend

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/hashicorp/go-secure-stdlib/base62"
	vault "github.com/hashicorp/vault/sdk/helper/template"
)

// Vault's templates hand over what they make only when all of it is made, and a short one
// can make gigabytes: by a loop, by a width, by replacing in what it has replaced. So here
// one runs each of its steps at most once, and no step makes more than a name can be.

const (
	// mostTemplate bounds a template, in bytes.
	mostTemplate = 4096
	// mostMade bounds what one makes, and each step of it, in bytes: Jira stores 255
	// characters of a name or an address, which have up to four bytes each.
	mostMade = 4 * 255
)

// errTooMuch is why a template stops.
var errTooMuch = fmt.Errorf("it makes more than %d bytes", mostMade)

// generate makes a text of a role's template, with p, of which nothing is longer than
// mostMade either.
func generate(text string, p persona) (string, error) {
	if len(text) > mostTemplate {
		return "", fmt.Errorf("it has %d bytes, and %d is the most", len(text), mostTemplate)
	}
	if err := runsOnce(text); err != nil {
		return "", err
	}
	options := []vault.Opt{vault.Template(text)}
	for name, f := range growing {
		options = append(options, vault.Function(name, f))
	}
	t, err := vault.NewTemplate(options...)
	if err != nil {
		return "", err
	}
	return enough(t.Generate(p))
}

// enough refuses more than a name can be.
func enough(made string, err error) (string, error) {
	if err == nil && len(made) > mostMade {
		return "", errTooMuch
	}
	return made, err
}

// runsOnce refuses a template that does not parse, or that could run one of its steps
// more than once.
func runsOnce(text string) error {
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck // Vault's own parsing knows the functions
	all := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", all); err != nil {
		return err
	}
	if len(all) > 1 {
		return fmt.Errorf("define and block are not allowed")
	}
	return runsListOnce(tree.Root)
}

func runsListOnce(list *parse.ListNode) error {
	if list == nil { // as of an if without an else
		return nil
	}
	for _, n := range list.Nodes {
		branch := (*parse.BranchNode)(nil)
		switch n := n.(type) {
		case *parse.RangeNode:
			return fmt.Errorf("range is not allowed")
		case *parse.TemplateNode:
			return fmt.Errorf("template is not allowed")
		case *parse.IfNode:
			branch = &n.BranchNode
		case *parse.WithNode:
			branch = &n.BranchNode
		default:
			continue
		}
		if err := runsListOnce(branch.List); err != nil {
			return err
		}
		if err := runsListOnce(branch.ElseList); err != nil {
			return err
		}
	}
	return nil
}

// growing are those functions of templates, Vault's and Go's, that can make more than they
// are given. They do what they do there, up to mostMade.
var growing = template.FuncMap{
	"random": func(n int) (string, error) {
		if n > mostMade {
			return "", errTooMuch
		}
		return base62.Random(n)
	},
	"replace": func(find, by, text string) (string, error) {
		if len(text)+strings.Count(text, find)*len(by) > mostMade {
			return "", errTooMuch
		}
		return strings.ReplaceAll(text, find, by), nil
	},
	"base64":    func(text string) (string, error) { return enough(base64.StdEncoding.EncodeToString([]byte(text)), nil) },
	"timestamp": func(layout string) (string, error) { return enough(time.Now().Format(layout), nil) },
	"printf": func(format string, args ...any) (string, error) {
		if tooWide.MatchString(format) {
			return "", errTooMuch
		}
		return joined(func(args ...any) string { return fmt.Sprintf(format, args...) })(args...)
	},
	"print":    joined(fmt.Sprint),
	"println":  joined(fmt.Sprintln),
	"html":     joined(template.HTMLEscaper),
	"js":       joined(template.JSEscaper),
	"urlquery": joined(template.URLQueryEscaper),
}

// tooWide finds widths and precisions of a format that are not written out, or have more
// than three digits.
var tooWide = regexp.MustCompile(`%[^a-zA-Z%]*(\*|[0-9]{4})`)

// joined is f up to mostMade.
func joined(f func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		n := 0
		for _, one := range args {
			if text, ok := one.(string); ok {
				n += len(text)
			}
		}
		if n > mostMade {
			return "", errTooMuch
		}
		return enough(f(args...), nil)
	}
}
