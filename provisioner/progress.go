package provisioner

// Decided says about how many nodes this replica has decided since it began, and how many are its own: equal once its
// first look at everything is over.
func (l *Loop) Decided() (decided, owned int) {
	l.Init()
	ids := l.Copy.Nodes()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.Owns != nil && !l.Owns(id) {
			continue
		}
		owned++
		if n := l.nodes[id]; n != nil && !n.at.IsZero() {
			decided++
		}
	}
	return decided, owned
}
