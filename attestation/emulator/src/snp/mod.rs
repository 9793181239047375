//! SEV-SNP: chips, their certificates and reports, what they answer to guests, and how they can go wrong.

pub mod certificates;
pub mod chip;
pub mod crl;
pub mod driver;
pub mod faults;
pub mod fuse;
pub mod id_block;
pub mod processor;
pub mod product;
pub mod report;
pub mod server;
mod table;
pub mod wire;

pub use certificates::{AUTHORITY_BITS, Authorities};
pub use chip::Chip;
pub use faults::Fault;
pub use processor::{Launch, Processor};
pub use product::{Product, Tcb};
pub use report::KeyKind;
