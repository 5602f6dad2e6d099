// Package tap writes the Test Anything Protocol (testanything.org, version 13).
//
// The validation programs of OCI runtime-tools import a package of this name and interface which Debian does not
// have; this one stands in its place when they are built. Only what they call is here.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T is one stream of test results.
type T struct {
	// Writer receives the stream; standard output when it is nil.
	Writer io.Writer
	count  int
}

// New starts a stream on standard output.
func New() *T { return &T{} }

func (t *T) print(format string, args ...interface{}) {
	writer := t.Writer
	if writer == nil {
		writer = os.Stdout
	}
	fmt.Fprintf(writer, format, args...)
}

// Header writes the version, and the plan when the number of tests is known beforehand (above 0).
func (t *T) Header(tests int) {
	t.print("TAP version 13\n")
	if tests > 0 {
		t.print("1..%d\n", tests)
	}
}

// AutoPlan writes the plan after the last test.
func (t *T) AutoPlan() { t.print("1..%d\n", t.count) }

// Ok writes one result.
func (t *T) Ok(passed bool, description string) {
	t.count++
	verdict := "ok"
	if !passed {
		verdict = "not ok"
	}
	t.print("%s %d - %s\n", verdict, t.count, oneLine(description))
}

// Pass writes a result that is good.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail writes a result that is not good.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Todo gives results that are known not to be good yet.
func (t *T) Todo() Todo { return Todo{t} }

// Todo writes results whose failure is expected.
type Todo struct{ t *T }

// Fail writes one such result.
func (todo Todo) Fail(description string) {
	todo.t.count++
	todo.t.print("not ok %d # TODO %s\n", todo.t.count, oneLine(description))
}

// Skip writes so many results as skipped.
func (t *T) Skip(tests int, reason string) {
	for i := 0; i < tests; i++ {
		t.count++
		t.print("ok %d # SKIP %s\n", t.count, oneLine(reason))
	}
}

// Diagnostic writes a comment of one or more lines.
func (t *T) Diagnostic(text string) {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		t.print("# %s\n", line)
	}
}

// Diagnosticf writes a formatted comment.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML attaches a value to the last result. JSON is written, which is YAML too.
func (t *T) YAML(value interface{}) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	t.print("  ---\n  %s\n  ...\n", text)
	return nil
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
