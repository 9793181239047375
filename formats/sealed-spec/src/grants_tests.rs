//! Each grant, broken alone.
