package ledger

// HeldFor counts the places of r's role that who asked for r takes.
func (l *Ledger) HeldFor(r *Record) int {
	l.index.mu.Lock()
	defer l.index.mu.Unlock()
	return l.index.readers.held(r)
}

// Readers counts the shares that are in memory.
func (l *Ledger) Readers() int {
	l.index.mu.Lock()
	defer l.index.mu.Unlock()
	return len(l.index.readers.of)
}
