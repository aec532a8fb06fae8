//! Images that exist only in a catalog, for tests.

use super::catalog::Image;
use crate::base::{BlockSize, ByteLen, Digest};
use crate::image::{Header, Info, Kind, Parent};
use crate::store::FileName;
use std::sync::Arc;
use uuid::Uuid;

/// The id of image number `n`.
pub(crate) fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n) << 96 | 0xD15C)
}

/// Image number `n` of one history, incremental on number `parent`, or full when that is 0.
pub(crate) fn point(n: u32, parent: u32) -> Image {
    let root = |n: u32| Digest::of(&n.to_le_bytes());
    Image {
        file: FileName::new(format!("{n}.strata")).unwrap(),
        len: 1000,
        header: Header {
            id: id(n),
            set: Uuid::from_u128(9),
            sequence: n,
            parent: (parent > 0).then(|| Parent {
                id: id(parent),
                sequence: parent,
                root: root(parent),
            }),
            kind: if parent == 0 {
                Kind::Full
            } else {
                Kind::Incremental
            },
            disk_len: ByteLen(1 << 20),
            block_size: BlockSize::new(4096).unwrap(),
            window_log2: 2,
        },
        root: root(n),
        key_set: None,
        info: Arc::new(Info {
            set: "a".into(),
            created: i64::from(n) * 86_400,
            ..Info::default()
        }),
    }
}
