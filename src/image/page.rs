//! Pages of the table, whichever level they are of.

use super::header::Header;
use super::leaf::Leaf;
use super::node::Node;
use super::state::BlockState;
use crate::base::{Digest, checksum_matches};
use std::sync::Arc;

/// What a page stands for, whoever recorded it: equal content is equal here, in whichever image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Every block below has this state, which has no content.
    Uniform(BlockState),
    /// The page digest.
    Mixed(Digest),
}

impl Content {
    /// Whether a page with this content is the one of which another page says `stored`.
    pub fn matches(self, stored: Content) -> bool {
        match (self, stored) {
            (Content::Mixed(computed), Content::Mixed(stored)) => {
                checksum_matches(computed, stored)
            }
            _ => self == stored,
        }
    }
}

/// A page that was read and whose digest was computed.
#[derive(Debug, Clone)]
pub struct Page {
    /// What is in it.
    pub body: Body,
    /// The page digest.
    pub digest: Digest,
    /// What the page above it says of it.
    pub content: Content,
}

/// The two kinds of pages.
#[derive(Debug, Clone)]
pub enum Body {
    /// Blocks.
    Leaf(Arc<Leaf>),
    /// Pages below.
    Node(Arc<Node>),
}

impl Page {
    /// Reads the payload of page (`level`, `index`); `None` when any rule of the format is broken.
    pub(super) fn decode(bytes: &[u8], header: &Header, level: u8, index: u64) -> Option<Page> {
        let (body, digest, content) = if level == 0 {
            let (leaf, digest, content) = Leaf::decode(bytes, header, index)?;
            (Body::Leaf(Arc::new(leaf)), digest, content)
        } else {
            let (node, digest, content) = Node::decode(bytes, header, level, index)?;
            (Body::Node(Arc::new(node)), digest, content)
        };
        Some(Page {
            body,
            digest,
            content,
        })
    }
}
