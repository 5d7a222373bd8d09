package jiratest

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
)

// answer is what Jira would say, before any fault gets at it.
type answer struct {
	status int
	header http.Header // nil: none but the usual
	body   []byte
}

// object is a decoded JSON object. It is no struct because encoding/json would take "Name" for "name", which Jira does not.
type object map[string]json.RawMessage

// text returns the string at key, or "" if there is none.
func (o object) text(key string) string {
	var s string
	if json.Unmarshal(o[key], &s) != nil {
		return ""
	}
	return s
}

// has says that key is there and not null.
func (o object) has(key string) bool {
	v, ok := o[key]
	return ok && string(v) != "null"
}

// object returns the object at key, or nil if there is none.
func (o object) object(key string) object {
	var sub object
	if json.Unmarshal(o[key], &sub) != nil {
		return nil
	}
	return sub
}

func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("jiratest: an answer that is no JSON: %v", err)) // all of them are maps made here
	}
	return answer{status, http.Header{"Content-Type": {"application/json;charset=UTF-8"}}, body}
}

func emptyAnswer(status int) answer { return answer{status: status} }

func textAnswer(status int, text string) answer {
	return answer{status, http.Header{"Content-Type": {"text/plain;charset=UTF-8"}}, []byte(text)}
}

func htmlAnswer(status int, title, text string) answer {
	body := fmt.Sprintf("<!doctype html><html lang=\"en\"><head><title>%s</title></head><body><h1>%s</h1><p>%s</p></body></html>",
		html.EscapeString(title), html.EscapeString(title), html.EscapeString(text))
	return answer{status, http.Header{"Content-Type": {"text/html;charset=UTF-8"}}, []byte(body)}
}

// tomcatAnswer is the servlet container's own error page.
func tomcatAnswer(status int, text string) answer {
	return htmlAnswer(status, fmt.Sprintf("HTTP Status %d – %s", status, http.StatusText(status)), text)
}

// loginAnswer is what calls that need a login say to anonymous.
func loginAnswer() answer {
	return jsonAnswer(http.StatusUnauthorized, map[string]any{
		"message": "Client must be authenticated to access this resource.", "status-code": http.StatusUnauthorized,
	})
}

// messageAnswer is an error of /rest/api/2 that belongs to no field.
func messageAnswer(status int, text string) answer {
	return jsonAnswer(status, map[string]any{"errorMessages": []string{text}, "errors": map[string]string{}})
}

// fieldAnswer is an error of /rest/api/2 that belongs to one field.
func fieldAnswer(field, text string) answer {
	return jsonAnswer(http.StatusBadRequest, map[string]any{
		"errorMessages": []string{}, "errors": map[string]string{field: text},
	})
}

func forbiddenAnswer() answer {
	return messageAnswer(http.StatusForbidden, "You are not authorized to perform this operation. Administrator privileges are required.")
}
