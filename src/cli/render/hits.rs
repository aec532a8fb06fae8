//! What lost bytes belong to.

use super::{clean, most_ranges};
use crate::base::ByteLen;
use crate::cli::args::OutputArgs;
use crate::ops::show::Hit;

/// A line for each partition and each file that is hit; nothing when there is none.
pub(super) fn hits(hits: &[Hit], output: OutputArgs) -> String {
    let mut text = String::new();
    for hit in hits {
        let bytes = ByteLen(hit.bytes);
        let label = hit.label.as_deref().map(|label| format!(" {label}"));
        let what = clean(&format!("{}{}", hit.filesystem, label.unwrap_or_default()));
        text.push_str(&match hit.partition {
            Some(0) => format!("  {bytes} of the disk ({what})\n"),
            Some(number) => format!("  {bytes} of partition {number} ({what})\n"),
            None => format!("  {bytes} outside of partitions: tables and gaps\n"),
        });
        files(hit, most_ranges(output), &mut text);
    }
    text
}

fn files(hit: &Hit, most: usize, text: &mut String) {
    for file in hit.files.iter().take(most) {
        let volume = file.volume.as_deref().map(|v| format!("{v}: "));
        let path = clean(&format!("{}{}", volume.unwrap_or_default(), file.path));
        let kind = if file.directory { ", a directory" } else { "" };
        let own = if file.own_metadata {
            ", and what says where it lies"
        } else {
            ""
        };
        text.push_str(&format!("    {path}: {}{own}{kind}\n", ByteLen(file.bytes)));
    }
    let listed = crate::base::to_u64(hit.files.len().min(most));
    let all = crate::base::to_u64(hit.files.len()).saturating_add(hit.more_files);
    if all > listed {
        text.push_str(&format!("    and {} more files\n", all - listed));
    }
    if hit.metadata_bytes > 0 {
        let bytes = ByteLen(hit.metadata_bytes);
        text.push_str(&format!(
            "    {bytes} of the file system's own structures\n"
        ));
    }
    if hit.free_bytes > 0 {
        let bytes = ByteLen(hit.free_bytes);
        text.push_str(&format!("    {bytes} that nothing uses\n"));
    }
    if let Some(why) = &hit.incomplete {
        text.push_str(&format!("    not all files are known: {}\n", clean(why)));
    }
}
