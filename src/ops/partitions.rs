//! The parts of a disk, of this machine or inside an image.

use crate::base::{Error, ErrorKind, Result};
use crate::chain::ChainView;
use crate::image::{Header, Info};
use crate::layout::{Layout, Partition};

/// The layout of an imaged disk: the one that its image carries, or, where that is missing or does
/// not fit the disk, a new reading of the imaged bytes.
///
/// # Errors
/// `Damaged` when the imaged table cannot be read.
pub(super) fn layout_of(view: &ChainView) -> Result<Layout> {
    let image = view.image();
    let stored = valid_layout(image.info(), image.header());
    stored.map_or_else(|| crate::layout::read(view), Ok)
}

/// The layout that an image carries, if there is one and it fits the disk.
pub(super) fn valid_layout(info: &Info, header: &Header) -> Option<Layout> {
    let stored = serde_json::from_value::<Layout>(info.layout.clone()).ok()?;
    stored.validate(header.disk_len).is_ok().then_some(stored)
}

/// Partition `number` of `layout`.
///
/// # Errors
/// `NotFound`, saying which there are.
pub(super) fn numbered<'a>(layout: &'a Layout, number: u32, of: &str) -> Result<&'a Partition> {
    layout.partition(number).ok_or_else(|| {
        let there: Vec<String> = layout
            .partitions
            .iter()
            .map(|p| p.number.to_string())
            .collect();
        let why = match there.as_slice() {
            [] => "there are no partitions".to_owned(),
            some => format!("there are {}", some.join(", ")),
        };
        Error::new(
            ErrorKind::NotFound,
            "find",
            format!("partition {number} of {of}"),
        )
        .because(why)
        .hint("`strata show` lists the partitions of an image, `strata disks` those of a disk")
    })
}
