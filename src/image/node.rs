//! Node pages: what the pages below stand for, and where they lie.

use super::bytes::{Fields, low16};
use super::header::Header;
use super::limits::NODE_CHILDREN;
use super::page::Content;
use super::state::BlockState;
use super::trailer::RecordRef;
use super::tree::{pages_at, span_of, top_level};
use crate::base::{Digest, to_u64};

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagePlace {
    /// In the same file.
    Here(RecordRef),
    /// In the file of the image that recorded something below last, or of the one that took its place.
    Older,
    /// Nowhere: every block below has one state and was recorded by one image.
    Nowhere,
}

/// One child of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// What it stands for.
    pub content: Content,
    /// Sequence number of the image that recorded something below last.
    pub since: u32,
    /// Where its page lies.
    pub place: PagePlace,
}

/// The children of page (`level`, `index`). Section 6 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 1 or more.
    pub level: u8,
    /// Number of the page in its level.
    pub index: u64,
    /// Up to 128.
    pub children: Vec<Child>,
}

impl Node {
    /// The blocks below child `i`, clipped to the disk.
    pub fn child_range(&self, header: &Header, i: usize) -> std::ops::Range<u64> {
        let span = span_of(self.level - 1);
        let blocks = header.blocks();
        let first = self.child_index(i).saturating_mul(span).min(blocks);
        first..first.saturating_add(span).min(blocks)
    }

    /// The number of child `i` in its level.
    pub fn child_index(&self, i: usize) -> u64 {
        self.index
            .saturating_mul(NODE_CHILDREN)
            .saturating_add(to_u64(i))
    }

    /// The image that recorded something below last.
    pub(super) fn since(&self) -> u32 {
        self.children.iter().map(|c| c.since).max().unwrap_or(0)
    }

    /// State and image of every block below, when all have the same.
    pub(super) fn uniform(&self) -> Option<(BlockState, u32)> {
        let first = self.children.first()?;
        match (first.place, first.content) {
            (PagePlace::Nowhere, Content::Uniform(state))
                if self.children.iter().all(|c| c == first) =>
            {
                Some((state, first.since))
            }
            _ => None,
        }
    }

    fn content(&self, digest: Digest) -> Content {
        match self.children.first().map(|c| c.content) {
            Some(Content::Uniform(state))
                if self
                    .children
                    .iter()
                    .all(|c| c.content == Content::Uniform(state)) =>
            {
                Content::Uniform(state)
            }
            _ => Content::Mixed(digest),
        }
    }

    /// The payload, the page digest, and what the page above says of it.
    pub(super) fn encode(&self) -> (Vec<u8>, Digest, Content) {
        let mut out = Vec::with_capacity(4 + self.children.len() * 56);
        out.extend_from_slice(&low16(to_u64(self.children.len())));
        out.extend_from_slice(&[0; 2]);
        for child in &self.children {
            match child.content {
                Content::Mixed(digest) => {
                    out.extend_from_slice(&[1, 0, 0, 0]);
                    out.extend_from_slice(&digest.0);
                }
                Content::Uniform(state) => {
                    out.extend_from_slice(&[2, state.to_byte(), 0, 0]);
                    out.extend_from_slice(&Digest::default().0);
                }
            }
        }
        let digest = node_digest(self.level, self.index, &out);
        for child in &self.children {
            let (kind, place) = match child.place {
                PagePlace::Here(place) => (1, place),
                PagePlace::Older => (2, RecordRef::default()),
                PagePlace::Nowhere => (3, RecordRef::default()),
            };
            out.extend_from_slice(&[kind, 0, 0, 0]);
            out.extend_from_slice(&child.since.to_le_bytes());
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.stored_len.to_le_bytes());
        }
        (out, digest, self.content(digest))
    }

    /// Reads the payload of node (`level`, `index`); `None` when any rule of the format is broken.
    pub(super) fn decode(
        bytes: &[u8],
        header: &Header,
        level: u8,
        index: u64,
    ) -> Option<(Node, Digest, Content)> {
        // Nothing stands above the top page; a forged one would say what no page may.
        (level <= top_level(header.blocks())).then_some(())?;
        let below = pages_at(header.blocks(), level.checked_sub(1)?);
        let expected = below
            .checked_sub(index.checked_mul(NODE_CHILDREN)?)?
            .min(NODE_CHILDREN);
        let mut f = Fields(bytes);
        let count = f.u16()?;
        f.reserved(2)?;
        (u64::from(count) == expected && count > 0).then_some(())?;
        let contents: Vec<Content> = (0..count)
            .map(|_| decode_content(&mut f))
            .collect::<Option<_>>()?;
        let committed = bytes.get(..bytes.len() - f.0.len())?;
        let digest = node_digest(level, index, committed);
        let children = contents
            .into_iter()
            .map(|content| decode_place(&mut f, header, content))
            .collect::<Option<_>>()?;
        let node = Node {
            level,
            index,
            children,
        };
        let content = node.content(digest);
        f.is_empty().then_some((node, digest, content))
    }
}

fn decode_content(f: &mut Fields<'_>) -> Option<Content> {
    let kind = f.u8()?;
    let state = f.u8()?;
    f.reserved(2)?;
    let digest = Digest(f.array()?);
    match (kind, state) {
        (1, 0) => Some(Content::Mixed(digest)),
        (2, state) if digest == Digest::default() => {
            let state = BlockState::from_byte(state).filter(|s| !s.has_content())?;
            Some(Content::Uniform(state))
        }
        _ => None,
    }
}

fn decode_place(f: &mut Fields<'_>, header: &Header, content: Content) -> Option<Child> {
    let kind = f.u8()?;
    f.reserved(3)?;
    let since = f.u32()?;
    let at = RecordRef {
        offset: f.u64()?,
        stored_len: f.u32()?,
    };
    let nowhere = at == RecordRef::default();
    let new = since > header.parent_sequence();
    let place = match kind {
        1 if new => PagePlace::Here(at),
        2 if nowhere && !new => PagePlace::Older,
        3 if nowhere && matches!(content, Content::Uniform(_)) => PagePlace::Nowhere,
        _ => return None,
    };
    (1..=header.sequence).contains(&since).then_some(Child {
        content,
        since,
        place,
    })
}

fn node_digest(level: u8, index: u64, committed: &[u8]) -> Digest {
    let context = "diskstrata table node 1";
    Digest::derive(context, &[&[level], &index.to_le_bytes(), committed])
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::{child_of, sample};
    use super::super::limits::LEAF_BLOCKS;
    use super::*;

    fn node() -> Node {
        Node {
            level: 1,
            index: 0,
            children: vec![
                Child {
                    content: Content::Uniform(BlockState::Zero),
                    since: 7,
                    place: PagePlace::Nowhere,
                },
                Child {
                    content: Content::Mixed(Digest::of(b"a")),
                    since: 7,
                    place: PagePlace::Here(RecordRef {
                        offset: 77,
                        stored_len: 9,
                    }),
                },
                Child {
                    content: Content::Mixed(Digest::of(b"b")),
                    since: 3,
                    place: PagePlace::Older,
                },
            ],
        }
    }

    fn header(parent: u32, sequence: u32) -> Header {
        child_of(&sample(4096 * (2 * LEAF_BLOCKS + 8)), parent, sequence)
    }

    #[test]
    fn nodes_round_trip() {
        let (bytes, digest, content) = node().encode();
        let decoded = Node::decode(&bytes, &header(4, 7), 1, 0);
        assert_eq!(decoded, Some((node(), digest, content)));
        assert!(
            Node::decode(&bytes, &sample(4096), 1, 0).is_none(),
            "too many children"
        );
    }

    #[test]
    fn pages_lie_where_their_age_says() {
        let (bytes, ..) = node().encode();
        assert_eq!(Node::decode(&bytes, &header(2, 7), 1, 0), None);
        assert_eq!(Node::decode(&bytes, &header(4, 6), 1, 0), None);
        assert_eq!(Node::decode(&bytes, &header(7, 8), 1, 0), None);
        let full = sample(4096 * (2 * LEAF_BLOCKS + 8));
        assert_eq!(
            Node::decode(&bytes, &full, 1, 0),
            None,
            "a full image has nothing in older files"
        );
    }

    #[test]
    fn nothing_stands_above_the_top_page() {
        let header = child_of(&sample(4096 * (2 * LEAF_BLOCKS + 8)), 4, 7);
        let above = Node {
            level: 2,
            index: 0,
            children: vec![node().children[2]],
        };
        let (bytes, ..) = above.encode();
        assert_eq!(Node::decode(&bytes, &header, 2, 0), None);
    }

    #[test]
    fn the_digest_does_not_tell_where_pages_lie() {
        let mut moved = node();
        moved.children[2].place = PagePlace::Here(RecordRef {
            offset: 1,
            stored_len: 2,
        });
        moved.children[2].since = 7;
        assert_eq!(moved.encode().1, node().encode().1);
    }
}
