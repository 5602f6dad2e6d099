//! Container images: names, manifests and layers; the store that keeps them, registries, and root filesystems made of them.
//!
//! [`mod@reference`], [`digest`], [`manifest`] and [`layer`] only compute; everything else has effects. All calls block, but for
//! those of [`registry`], which belong into a tokio runtime. Start at [`store::Store`].

pub mod build;
pub mod diff;
pub mod digest;
pub mod error;
pub mod export;
pub mod files;
pub mod gc;
pub mod import;
pub mod layer;
pub mod manifest;
pub mod pack;
pub mod reference;
pub mod registry;
pub mod snapshot;
pub mod store;
pub mod unpack;

pub use digest::Digest;
pub use error::{Error, Result};
pub use reference::Reference;
