// Package web is the inventory's face for eyes: the fleet, one node, and the lifecycle, as pages of a browser.
//
// A page is a list of parts (page.go), each made by one template from one value. The server sends the whole page first,
// so it can be read without JavaScript; then the browser holds one event stream (live.go) on which the server sends the
// parts that have changed. Both come from the same function of a page, so they cannot differ: fleet.go, node.go and
// lifecycle.go. What a page says of a node is api.Explain's answer and the node's record, read from the watched copy.
//
// A person comes in by the link of hostler login, which is traded once for a cookie (session.go). The package only
// reads: nothing that a browser sends changes a node, and every page says which command does. It has no assets from
// elsewhere and no inline script or style, so its Content-Security-Policy allows none.
package web
