//! The parts of a disk, of this machine or inside an image.

use crate::base::{Error, ErrorKind, Result};
use crate::chain::ChainView;
use crate::layout::{Layout, Partition};

/// The layout of an imaged disk: the one that its image carries, or, where that is missing or does
/// not fit the disk, a new reading of the imaged bytes.
///
/// # Errors
/// `Damaged` when the imaged table cannot be read.
pub(super) fn layout_of(view: &ChainView) -> Result<Layout> {
    let image = view.image();
    let stored = serde_json::from_value::<Layout>(image.info().layout.clone());
    match stored {
        Ok(layout) if layout.validate(image.header().disk_len).is_ok() => Ok(layout),
        _ => crate::layout::read(view),
    }
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
