// Package api is the inventory's face for programs: HTTP and JSON under /v1, described by the OpenAPI document that is
// made from the Go types here (docs/openapi.json).
//
// It owns the table of routes (routes.go: method, path, who may), the tokens (auth.go, tokens.go), what each role is shown
// (nodes.go, redact.go), the answers to "why" (why.go), and the event stream (watch.go). A request goes: token →
// identity → row of the table → handler → a fresh read or one transaction of package ledger. Whatever has no row is
// refused. Refusals are RFC 9457 problems with a detail and a fix; when the store is away, the answer is 503 and why.
//
// It only reads and writes the inventory. It never talks to hardware: what a node must do is written as a wish, and the
// provisioner answers it. What only the daemon knows (live progress, boot previews, image bytes, the sealing key) comes
// in through the small seams of Server.
package api
