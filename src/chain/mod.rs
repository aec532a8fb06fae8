//! Images as history: which ones a store holds, which one a person means, and any of them as a disk.
//!
//! Promises: the files are the only truth; what is broken is listed, never hidden, and never keeps
//! whole images from being used. Must not know: devices, targets, how images are written.

mod catalog;
mod select;
mod view;

pub use catalog::{Broken, Catalog, Image, SUFFIX};
pub use view::ChainView;
