//! Which images may run: containers-policy.json(5), and the signatures that it asks for. Pure: no I/O.
