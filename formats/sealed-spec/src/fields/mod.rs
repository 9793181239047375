//! What of a manifest stays public, what is sealed, and what becomes a placeholder.
