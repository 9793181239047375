//! Opening, by what the host supplied.
