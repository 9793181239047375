//! A client of OCI registries (distribution-spec 1.1) that believes nothing they send.
