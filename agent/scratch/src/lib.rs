//! An untrusted block device as scratch: encrypted and authenticated under a key that dies with the guest.
//!
//! ```text
//! ext4 → NAME        dm-crypt: xts(aes-256) with a random IV, and HMAC-SHA-256 (128 bits kept) over sector number, IV
//!                    and ciphertext
//!      → NAME-tags   dm-integrity, direct mode: IV and tag (32 bytes) of each 4 KiB block; it hashes nothing itself
//!          ├ NAME-data  dm-linear: the host's device
//!          └ where tags live: a loop device on guest memory, or (see [`Tags::Device`]) the end of the host's device
//! ```
//!
//! - **There is no header on the device**, so none can be hostile: dm-integrity's superblock and journal are always in
//!   guest memory, dm-crypt has no header, and nothing on the device is read before this guest wrote it.
//! - **The key** is 96 random bytes of the kernel's generator. It goes to dm-crypt through a `logon` key of the calling
//!   thread, which no process can read back and which is revoked as soon as the table stands. Tables show its name.
//! - **What the host can do**: changed bytes, blocks moved to other places and blocks of other devices or earlier boots
//!   fail their tag; the read gets `EIO`. With [`Tags::Memory`] an older version of a block fails too, since its tag is
//!   not the one in memory. With [`Tags::Device`] the host can bring back what a block held earlier in this guest's
//!   life, together with the tag it had then, and that is not noticed. It sees which blocks are written when, and can
//!   lose them.
//! - **No journal, no bitmap**: they keep data and tags together over a crash, and after a crash there is no key.

mod device;
mod dm;
mod error;
pub mod ext4;
mod key;
mod scratch;
mod sys;
mod table;
mod tags;

pub use error::ScratchError;
pub use scratch::Scratch;
pub use tags::Tags;
