//! `/proc/swaps`: where the kernel swaps to (mm/swapfile.c, `swap_show`).

use super::text::{as_path, unescape_octal};
use std::path::PathBuf;

/// The partitions and files in use as swap. The first line is a heading.
pub(super) fn parse(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|b| *b == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|b| matches!(b, b' ' | b'\t')).next())
        .filter(|name| !name.is_empty())
        .map(|name| as_path(&unescape_octal(name)).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        let table = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/dm-1                               partition\t8388604\t\t0\t\t-2\n\
            /swap\\040file                           file\t\t1048572\t\t0\t\t-3\n";
        assert_eq!(
            parse(table),
            [PathBuf::from("/dev/dm-1"), PathBuf::from("/swap file")]
        );
        assert!(parse(b"").is_empty());
    }
}
