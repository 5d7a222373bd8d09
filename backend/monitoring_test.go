package backend

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/monitoring asks for is what the engine tells: each name and each label.
func TestWhatIsWatchedIsThere(t *testing.T) {
	there := map[string]string{}
	for _, d := range Metrics() {
		name := regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())
		there[name[1]] = d.String()
	}
	files, err := filepath.Glob("../docs/monitoring/*.[yj]*") // no picture
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	asked := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(namespace+`_(\w+)(\{[^}]*\})?`).FindAllStringSubmatch(string(text), -1) {
			name := namespace + "_" + m[1]
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				if whole := strings.TrimSuffix(name, part); there[whole] != "" {
					name = whole
				}
			}
			asked[name] = true
			if there[name] == "" {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
			for _, l := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(m[2], -1) {
				if l[1] != "job" && l[1] != "instance" && !strings.Contains(there[name], l[1]) { // those two are Prometheus' own
					t.Errorf("%s asks for %s of %s, which has no such label", file, l[1], name)
				}
			}
		}
	}
	if len(asked) < 8 {
		t.Errorf("%d are asked for", len(asked))
	}
}
