//! Pulls, verifies and unpacks images inside the guest.
