package backend

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
)

// operationPrefix starts the OpenAPI name of every operation.
const operationPrefix = "jira"

// resource is something that is created, read, updated, patched and deleted
// as a whole: the config, an account, a role.
type resource struct {
	suffix string // of its operations' OpenAPI names
	event  string // what starts the names of its events
	what   string // in sentences

	read, write, remove framework.OperationFunc
	forwardReads        bool // a read tells what only the active node knows

	answer  map[string]*framework.FieldSchema // the fields of a read
	request map[string]any                    // a sample write
	change  map[string]any                    // a sample patch
	example map[string]any                    // a sample read
}

// operations declares what can be done with r. All that asks Jira or writes
// is forwarded to where writing is safe, before anything happens.
func (b *backend) operations(r resource) map[logical.Operation]framework.OperationHandler {
	writing := func(verb, summary string, sample map[string]any) *framework.PathOperation {
		return &framework.PathOperation{
			Callback:                    b.edge(b.telling(r.event, r.read, r.write)),
			Summary:                     summary,
			Examples:                    []framework.RequestExample{{Description: summary, Data: sample}},
			Responses:                   written(),
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
			DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: r.suffix},
		}
	}
	return map[logical.Operation]framework.OperationHandler{
		logical.CreateOperation: writing("write", "Write "+r.what+". What is not sent of one that exists stays as it is.", r.request),
		logical.UpdateOperation: writing("write", "Write "+r.what+". What is not sent stays as it is.", r.request),
		logical.PatchOperation:  writing("patch", "Change fields of "+r.what+". A null sets a field back to its default.", r.change),
		logical.ReadOperation: &framework.PathOperation{
			Callback:     b.edge(r.read),
			Summary:      "Read " + r.what + ". Credentials are never read back.",
			Responses:    answered(r.answer, &logical.Response{Data: r.example}),
			DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: r.suffix},

			ForwardPerformanceStandby:   r.forwardReads,
			ForwardPerformanceSecondary: r.forwardReads,
		},
		logical.DeleteOperation: &framework.PathOperation{
			Callback:                    b.edge(b.telling(r.event, r.read, r.remove)),
			Summary:                     "Delete " + r.what + ".",
			Responses:                   written(),
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
			DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: r.suffix},
		},
	}
}

// listing declares a list of names, with a few facts of each.
func (b *backend) listing(suffix, what string, forward bool, list framework.OperationFunc, names []string, info map[string]any) map[logical.Operation]framework.OperationHandler {
	return map[logical.Operation]framework.OperationHandler{
		logical.ListOperation: &framework.PathOperation{
			Callback: b.edge(list),
			Summary:  "List " + what + ".",
			Responses: answered(map[string]*framework.FieldSchema{
				"keys":     {Type: framework.TypeStringSlice, Description: "The names. Where there are none Vault answers 404."},
				"key_info": {Type: framework.TypeMap, Description: "A few facts of each, by name."},
			}, &logical.Response{Data: map[string]any{"keys": names, "key_info": info}}),
			DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "list", OperationSuffix: suffix},

			ForwardPerformanceStandby:   forward,
			ForwardPerformanceSecondary: forward,
		},
	}
}

// revise writes anew what lies under key, in words what, which a patch does not create: it has change make
// the new value of the old one, and stores it. change may ask Jira, so it runs
// without a lock; what it returns tells, under b.resources, whether the new
// value still agrees with all else. Where it does not, or somebody else has
// written meanwhile, all starts again on top of what is there then. before is
// nil where nothing is stored yet.
func revise[T any](ctx context.Context, b *backend, key, what string, patch bool, change func(v, before *T) (agrees func() (bool, error), err error)) error {
	for range mostRevisions {
		before, err := load[T](ctx, &b.decoded, b.storage, key)
		if err != nil {
			return err
		}
		v := new(T)
		if before != nil {
			*v = *before
		}
		if before == nil && patch {
			return fault.Userf("there is no %s to patch: write it first", what)
		}
		agrees, err := change(v, before)
		if err != nil {
			return err
		}
		stored, err := b.storeRevised(ctx, key, v, agrees, func() (bool, error) {
			now, err := load[T](ctx, &b.decoded, b.storage, key)
			return err == nil && (now == nil) == (before == nil) && (now == nil || reflect.DeepEqual(now, before)), err
		})
		if err != nil || stored {
			return err
		}
	}
	return fault.Unavailable(fmt.Sprintf("%s, or what it depends on, is being changed by others all the time: try again in a moment", what))
}

// isPatch tells whether req changes what has to be there.
func isPatch(req *logical.Request) bool { return req.Operation == logical.PatchOperation }

// mostRevisions is how often a write starts again that others have overtaken.
const mostRevisions = 20

// storeRevised stores v if every one of conditions holds, and nobody can
// change that in between.
func (b *backend) storeRevised(ctx context.Context, key string, v any, conditions ...func() (bool, error)) (bool, error) {
	b.resources.Lock()
	defer b.resources.Unlock()
	for _, holds := range conditions {
		if ok, err := holds(); err != nil || !ok {
			return false, err
		}
	}
	return true, store(ctx, b.storage, key, v)
}

// forceField is the schema of force, of a delete, and of a write of a credential.
func forceField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeBool,
		Description: "For a delete: first end every token that stands in its way, whatever their leases say. What Jira does not end now the engine goes on trying to end, and keeps what it takes to log in, sealed, until then. For a write: take a token or a password although a rotation has replaced it.",
		Query:       true,
	}
}

// exists tells Vault whether a write creates or updates what lies under
// prefix and the request's name. A name that cannot be stored is left for the
// write to refuse.
func (b *backend) exists(prefix string) framework.ExistenceFunc {
	return func(ctx context.Context, _ *logical.Request, d *framework.FieldData) (bool, error) {
		key := prefix
		if d.Schema["name"] != nil {
			name, err := nameIn(d, "it")
			if err != nil {
				return false, nil //nolint:nilerr // the write says why
			}
			key += name
		}
		entry, err := b.storage.Get(ctx, key)
		return entry != nil, err
	}
}

// answered is the response of an operation that says something.
func answered(fields map[string]*framework.FieldSchema, example *logical.Response) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: fields, Example: example}}}
}

// written is the response of an operation that has nothing to say, unless it
// has warnings.
func written() map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusNoContent: {{Description: "Done.", Fields: map[string]*framework.FieldSchema{}}},
		http.StatusOK:        {{Description: "Done, with warnings.", Fields: map[string]*framework.FieldSchema{}}},
	}
}

// answerFields are the fields of a read: those of the request, less what is
// never read back, and some more. All are always there.
func answerFields(request, more map[string]*framework.FieldSchema, less ...string) map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{}
	for _, from := range []map[string]*framework.FieldSchema{request, more} {
		for name, schema := range from {
			if !slices.Contains(less, name) {
				fields[name] = &framework.FieldSchema{Type: schema.Type, Description: schema.Description, Required: true}
			}
		}
	}
	return fields
}

// merged is all of the maps in one.
func merged[V any](all ...map[string]V) map[string]V {
	one := map[string]V{}
	for _, m := range all {
		maps.Copy(one, m)
	}
	return one
}

// warned is the response to a write: nothing, or the warnings.
func warned(warnings []string) *logical.Response {
	if len(warnings) == 0 {
		return nil
	}
	return &logical.Response{Warnings: warnings}
}

// list returns the names under prefix, with what info says of each. A name
// that vanishes meanwhile is left out.
func list[T any](ctx context.Context, known *decoded, s logical.Storage, prefix string, info func(string, *T) map[string]any) (*logical.Response, error) {
	names, err := s.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var there []string
	infos := map[string]any{}
	for _, name := range names {
		v, err := load[T](ctx, known, s, prefix+name)
		if err != nil {
			return nil, err
		}
		if v != nil {
			there = append(there, name)
			infos[name] = info(name, v)
		}
	}
	return logical.ListResponseWithInfo(there, infos), nil
}
