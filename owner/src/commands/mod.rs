//! One module a command.

pub(crate) mod appraise;
pub(crate) mod audit;
pub(crate) mod collateral;
pub(crate) mod doctor;
pub(crate) mod esm;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod image_key;
pub(crate) mod init;
pub(crate) mod keyprovider;
pub(crate) mod logs;
pub(crate) mod measure;
pub(crate) mod push;
pub(crate) mod resource;
pub(crate) mod retire;
pub(crate) mod seal;
