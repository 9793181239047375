//! The sealed pod specification: seal, open, bind.
