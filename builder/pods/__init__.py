"""One pod's life: waiting for it, watching it, starting and ending it, and why it failed."""
