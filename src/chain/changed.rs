//! The changed-block map of an image: what it recorded itself, and not an older one.

use super::view::ChainView;
use crate::base::Result;
use crate::image::{BlockState, BlockStates, BlockTable, Body, Content, PagePlace};
use std::ops::Range;

/// Calls `each` for every run of blocks of one state that the image recorded after its parent,
/// ascending; all of a full image.
///
/// # Errors
/// `Damaged` when its table is; what `each` returns.
pub fn changed(
    view: &ChainView,
    each: &mut dyn FnMut(Range<u64>, BlockState) -> Result<()>,
) -> Result<()> {
    let mut run: Option<(Range<u64>, BlockState)> = None;
    let mut add = |blocks: Range<u64>, state: BlockState| match &mut run {
        Some((last, same)) if last.end == blocks.start && *same == state => {
            last.end = blocks.end;
            Ok(())
        }
        _ => match run.replace((blocks, state)) {
            Some((blocks, state)) => each(blocks, state),
            None => Ok(()),
        },
    };
    body(view, &view.top()?.body, &mut add)?;
    match run {
        Some((blocks, state)) => each(blocks, state),
        None => Ok(()),
    }
}

fn body(
    view: &ChainView,
    page: &Body,
    add: &mut dyn FnMut(Range<u64>, BlockState) -> Result<()>,
) -> Result<()> {
    let header = view.header();
    let parent = header.parent_sequence();
    let node = match page {
        Body::Node(node) => node,
        Body::Leaf(leaf) => {
            let blocks = (leaf.first.0..).zip(&leaf.blocks);
            let mut new = blocks.filter(|(_, block)| block.since > parent);
            return new.try_for_each(|(index, block)| add(index..index + 1, block.state));
        }
    };
    for (i, child) in node.children.iter().enumerate() {
        if child.since <= parent {
            continue;
        }
        match (child.place, child.content) {
            (PagePlace::Nowhere, Content::Uniform(state)) => {
                add(node.child_range(header, i), state)?;
            }
            _ => {
                let page = view.page(node.level - 1, node.child_index(i), child)?;
                body(view, &page.body, add)?;
            }
        }
    }
    Ok(())
}
