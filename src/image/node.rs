//! Node pages: where the pages below lie.

use super::bytes::{Fields, low16};
use super::header::Header;
use super::limits::NODE_CHILDREN;
use super::state::BlockState;
use super::tree::{pages_at, span_of};
use crate::base::{Digest, to_u64};

/// One child of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// A page of its own.
    Stored {
        digest: Digest,
        offset: u64,
        stored_len: u32,
    },
    /// Every block below has this state.
    Uniform(BlockState),
}

/// The children of page (`level`, `index`). Section 6 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) children: Vec<Child>,
}

impl Node {
    /// The blocks below child `i`, clipped to the disk.
    pub(super) fn child_range(&self, header: &Header, i: usize) -> std::ops::Range<u64> {
        let span = span_of(self.level - 1);
        let blocks = header.blocks();
        let index = self
            .index
            .saturating_mul(NODE_CHILDREN)
            .saturating_add(to_u64(i));
        let first = index.saturating_mul(span).min(blocks);
        first..first.saturating_add(span).min(blocks)
    }

    pub(super) fn uniform(&self) -> Option<BlockState> {
        let first = self.children.first()?;
        match first {
            Child::Uniform(state) if self.children.iter().all(|c| c == first) => Some(*state),
            _ => None,
        }
    }

    pub(super) fn encode(&self) -> (Vec<u8>, Digest) {
        let mut out = Vec::with_capacity(4 + self.children.len() * 48);
        out.extend_from_slice(&low16(to_u64(self.children.len())));
        out.extend_from_slice(&[0; 2]);
        for child in &self.children {
            match child {
                Child::Stored { digest, .. } => {
                    out.extend_from_slice(&[1, 0, 0, 0]);
                    out.extend_from_slice(&digest.0);
                }
                Child::Uniform(state) => {
                    out.extend_from_slice(&[2, state.to_byte(), 0, 0]);
                    out.extend_from_slice(&Digest::default().0);
                }
            }
        }
        let digest = node_digest(self.level, self.index, &out);
        for child in &self.children {
            if let Child::Stored {
                offset, stored_len, ..
            } = child
            {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&stored_len.to_le_bytes());
            }
        }
        (out, digest)
    }

    /// Reads the payload of node (`level`, `index`); `None` when any rule of the format is broken.
    pub(super) fn decode(
        bytes: &[u8],
        header: &Header,
        level: u8,
        index: u64,
    ) -> Option<(Node, Digest)> {
        let below = pages_at(header.blocks(), level.checked_sub(1)?);
        let expected = below
            .checked_sub(index.checked_mul(NODE_CHILDREN)?)?
            .min(NODE_CHILDREN);
        let mut f = Fields(bytes);
        let count = f.u16()?;
        f.reserved(2)?;
        (u64::from(count) == expected && count > 0).then_some(())?;
        let mut children = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            children.push(decode_child(&mut f, header)?);
        }
        let committed = bytes.get(..bytes.len() - f.0.len())?;
        let digest = node_digest(level, index, committed);
        for child in &mut children {
            if let Child::Stored {
                offset, stored_len, ..
            } = child
            {
                *offset = f.u64()?;
                *stored_len = f.u32()?;
            }
        }
        f.is_empty().then_some((
            Node {
                level,
                index,
                children,
            },
            digest,
        ))
    }
}

fn decode_child(f: &mut Fields<'_>, header: &Header) -> Option<Child> {
    let kind = f.u8()?;
    let state = f.u8()?;
    f.reserved(2)?;
    let digest = Digest(f.array()?);
    match (kind, state) {
        (1, 0) => Some(Child::Stored {
            digest,
            offset: 0,
            stored_len: 0,
        }),
        (2, state) if digest == Digest::default() => {
            let state = BlockState::from_byte(state).filter(|s| !s.is_stored())?;
            (state != BlockState::Inherit || header.parent.is_some())
                .then_some(Child::Uniform(state))
        }
        _ => None,
    }
}

fn node_digest(level: u8, index: u64, committed: &[u8]) -> Digest {
    let context = "diskstrata table node 1";
    Digest::derive(context, &[&[level], &index.to_le_bytes(), committed])
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::*;

    #[test]
    fn nodes_round_trip() {
        let node = Node {
            level: 1,
            index: 0,
            children: vec![
                Child::Uniform(BlockState::Zero),
                Child::Stored {
                    digest: Digest::of(b"a"),
                    offset: 77,
                    stored_len: 9,
                },
            ],
        };
        let (bytes, digest) = node.encode();
        assert_eq!(
            Node::decode(&bytes, &sample(4096 * (1024 + 8)), 1, 0),
            Some((node, digest))
        );
        assert!(
            Node::decode(&bytes, &sample(4096), 1, 0).is_none(),
            "too many children"
        );
    }
}
