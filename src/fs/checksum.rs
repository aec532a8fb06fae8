//! Checksums of file systems.

pub(super) use crate::base::checksum_matches as matches;

/// CRC-32C (Castagnoli) as ext4 and Btrfs chain it: `seed` is the register to begin with (`!0` at
/// first), and the result is not inverted at the end.
pub(super) fn crc32c_raw(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-32 with the reflected polynomial 0xEDB88320, beginning with `seed`, not inverted at the end:
/// what LVM2 and F2FS use.
pub(super) fn crc32_raw(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!seed);
    hasher.update(bytes);
    !hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // CRC-32C and CRC-32 of "123456789" as the catalogues list them, inverted at the end.
        assert_eq!(!crc32c_raw(!0, b"123456789"), 0xE306_9283);
        assert_eq!(!crc32_raw(!0, b"123456789"), 0xCBF4_3926);
        let (head, tail) = b"123456789".split_at(4);
        assert_eq!(!crc32c_raw(crc32c_raw(!0, head), tail), 0xE306_9283);
        assert_eq!(!crc32_raw(crc32_raw(!0, head), tail), 0xCBF4_3926);
    }
}
