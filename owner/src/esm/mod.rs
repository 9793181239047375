//! ESM blobs of Power PEF, made and changed: the symmetric key under each machine's RSA key, digests of the
//! launch, files. The layout is `tee_evidence::pef`'s; what is secret is here.

mod attach;
mod kernel;
mod machine;
mod origin;
mod symmetric;

pub(crate) use attach::attach;
pub(crate) use kernel::in_memory;
pub(crate) use machine::Machine;
pub(crate) use origin::Origin;
pub(crate) use symmetric::SymmetricKey;
