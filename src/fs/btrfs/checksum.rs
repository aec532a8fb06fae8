//! The four checksums that protect superblock and tree blocks. The first 32 bytes of each block
//! hold the checksum of the rest (`fs/btrfs/disk-io.c`).

use super::super::checksum::{crc32c_raw, matches};
use super::super::doubt::Doubt;
use blake2::Blake2b;
use blake2::digest::Digest;
use blake2::digest::consts::U32;
use sha2::Sha256;
use twox_hash::XxHash64;

/// Room for a checksum at the start of a block.
const ROOM: usize = 32;

/// Which checksum it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b256,
}

impl Checksum {
    /// From its number on disk.
    pub(super) fn from_disk(number: u16) -> Result<Checksum, Doubt> {
        match number {
            0 => Ok(Checksum::Crc32c),
            1 => Ok(Checksum::XxHash64),
            2 => Ok(Checksum::Sha256),
            3 => Ok(Checksum::Blake2b256),
            other => Err(Doubt::new(format!(
                "checksums of type {other} are not known"
            ))),
        }
    }

    /// Whether the checksum at the start of `block` is that of the rest.
    pub(super) fn is_right(self, block: &[u8]) -> bool {
        let Some((stored, rest)) = block.split_at_checked(ROOM) else {
            return false;
        };
        let (computed, len) = self.of(rest);
        let mut expected = [0; ROOM];
        expected[..len].copy_from_slice(&stored[..len]);
        matches(computed, expected)
    }

    /// The checksum and its length.
    fn of(self, bytes: &[u8]) -> ([u8; ROOM], usize) {
        let mut out = [0; ROOM];
        let len = match self {
            Checksum::Crc32c => {
                let crc = !crc32c_raw(!0, bytes);
                out[..4].copy_from_slice(&crc.to_le_bytes());
                4
            }
            Checksum::XxHash64 => {
                let hash = XxHash64::oneshot(0, bytes);
                out[..8].copy_from_slice(&hash.to_le_bytes());
                8
            }
            Checksum::Sha256 => {
                out.copy_from_slice(&Sha256::digest(bytes));
                ROOM
            }
            Checksum::Blake2b256 => {
                out.copy_from_slice(&Blake2b::<U32>::digest(bytes));
                ROOM
            }
        };
        (out, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(checksum: Checksum, bytes: &[u8]) -> String {
        let (sum, len) = checksum.of(bytes);
        sum[..len].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// As `sha256sum` and `b2sum -l 256` print them; the check value of CRC-32C and the published
    /// XXH64 of "abc" have their bytes reversed.
    #[test]
    fn known_answers() {
        let digits = b"123456789";
        assert_eq!(hex(Checksum::Crc32c, digits), "839206e3");
        assert_eq!(hex(Checksum::XxHash64, b"abc"), "990977adf52cbc44");
        assert_eq!(
            hex(Checksum::Sha256, digits),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        assert_eq!(
            hex(Checksum::Blake2b256, digits),
            "16e0bf1f85594a11e75030981c0b670370b3ad83a43f49ae58a2fd6f6513cde9"
        );
    }

    #[test]
    fn only_the_checksum_s_own_bytes_are_compared() {
        let mut block = vec![7; 64];
        let (sum, _) = Checksum::Crc32c.of(&block[32..]);
        block[..4].copy_from_slice(&sum[..4]);
        assert!(Checksum::Crc32c.is_right(&block));
        block[40] = 8;
        assert!(!Checksum::Crc32c.is_right(&block));
        assert!(!Checksum::Crc32c.is_right(&block[..31]));
        assert!(Checksum::from_disk(4).is_err());
    }
}
