//! A pod.
