//! PodSpec and image configuration to OCI runtime specification.
