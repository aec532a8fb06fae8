//! The boot sector as bytes. Fields as in ntfs-3g's `include/ntfs-3g/layout.h`, little-endian.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;

/// Clusters of 2 MiB are the largest.
const MAX_CLUSTER: u64 = 2 << 20;
/// Records are 1024 or 4096 bytes long; this much is still sensible.
const MAX_RECORD: u64 = 64 << 10;

/// Whether a boot sector says that it is NTFS, and is no FAT whose name for its maker is "NTFS".
pub(super) fn is_ntfs(sector: &Raw<'_>) -> Result<bool, Doubt> {
    let fat_fields_empty = sector.le16(0x0E)? == 0 && sector.u8(0x10)? == 0;
    Ok(sector.slice(3, 8)? == b"NTFS    " && fat_fields_empty)
}

/// The boot sector: where things lie, all in bytes unless it says clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot {
    /// Length of a cluster: 512 bytes to 2 MiB.
    pub(super) cluster: u64,
    /// Number of clusters; the volume's last sector is in none.
    pub(super) clusters: u64,
    /// Start of `$MFT`.
    pub(super) mft: u64,
    /// Start of `$MFTMirr`.
    pub(super) mirror: u64,
    /// Length of an MFT record.
    pub(super) record: u64,
}

impl Boot {
    /// Reads it for a volume of `len` bytes.
    pub(super) fn decode(raw: &Raw<'_>, len: u64) -> Result<Boot, Doubt> {
        let sector = u64::from(raw.le16(0x0B)?);
        ensure(
            sector.is_power_of_two() && (512..=4096).contains(&sector),
            || format!("its boot sector claims sectors of {sector} bytes"),
        )?;
        let per_cluster = match raw.u8(0x0D)? {
            n @ 1..=128 => u64::from(n),
            n @ 0xE1..=0xFF => 1 << (256 - u64::from(n)),
            _ => 0,
        };
        let cluster = sector * per_cluster;
        ensure(
            per_cluster.is_power_of_two() && cluster <= MAX_CLUSTER,
            || format!("its boot sector claims clusters of {per_cluster} sectors"),
        )?;
        let unused = [raw.le32(0x0E)?, raw.le32(0x11)?, raw.le32(0x20)?];
        ensure(
            unused == [0; 3] && raw.le16(0x16)? == 0,
            || "its boot sector has values in fields that only FAT uses",
        )?;
        let sectors = raw.le64(0x28)?;
        let bytes = sectors.checked_mul(sector).filter(|b| *b <= len);
        let bytes = bytes.ok_or_else(|| {
            Doubt::new(format!(
                "its boot sector claims {sectors} sectors of {sector} bytes, more than the \
                 {len} bytes there are"
            ))
        })?;
        let clusters = bytes / cluster;
        let place = |at: usize, what: &str| {
            let lcn = raw.le64(at)?;
            ensure(lcn > 0 && lcn < clusters, || {
                format!("its boot sector puts {what} into cluster {lcn} of {clusters}")
            })?;
            Ok::<u64, Doubt>(lcn * cluster)
        };
        Ok(Boot {
            cluster,
            clusters,
            mft: place(0x30, "$MFT")?,
            mirror: place(0x38, "$MFTMirr")?,
            record: record_length(raw.u8(0x40)?, cluster)?,
        })
    }
}

/// The length of a record: clusters, or as a negative number the exponent of its bytes.
fn record_length(byte: u8, cluster: u64) -> Result<u64, Doubt> {
    let exponent = i8::from_le_bytes([byte]);
    let len = match u64::try_from(exponent) {
        Ok(clusters) => clusters * cluster,
        Err(_) => 1u64
            .checked_shl(exponent.unsigned_abs().into())
            .unwrap_or(0),
    };
    let sensible = len.is_power_of_two() && (512..=MAX_RECORD).contains(&len);
    ensure(sensible, || {
        format!("its boot sector claims MFT records of {len} bytes")
    })?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot sector with sectors per cluster, total sectors and the places of MFT and mirror.
    fn boot(per_cluster: u8, sectors: u64, mft: u64, mirror: u64, record: u8) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[3..11].copy_from_slice(b"NTFS    ");
        sector[0x0B..0x0E].copy_from_slice(&[0, 2, per_cluster]);
        sector[0x28..0x30].copy_from_slice(&sectors.to_le_bytes());
        sector[0x30..0x38].copy_from_slice(&mft.to_le_bytes());
        sector[0x38..0x40].copy_from_slice(&mirror.to_le_bytes());
        sector[0x40] = record;
        sector
    }

    fn decoded(sector: &[u8], len: u64) -> Result<Boot, Doubt> {
        Boot::decode(&Raw::new(sector, "boot sector"), len)
    }

    #[test]
    fn boot_sectors_tell_where_things_lie() {
        let found = decoded(&boot(8, 8191, 4, 512, 0xF6), 8192 * 512).unwrap();
        let expected = Boot {
            cluster: 4096,
            clusters: 1023,
            mft: 4 * 4096,
            mirror: 512 * 4096,
            record: 1024,
        };
        assert_eq!(found, expected);
        // Clusters of 2 MiB and 64 KiB; records of clusters.
        let large = decoded(&boot(0xF4, 1 << 20, 1, 2, 0xF6), 1 << 30).unwrap();
        assert_eq!((large.cluster, large.clusters), (2 << 20, 256));
        let largest = decoded(&boot(0x80, 1 << 20, 1, 2, 1), 1 << 30).unwrap();
        assert_eq!((largest.cluster, largest.record), (64 << 10, 64 << 10));
        let small = decoded(&boot(1, 100, 1, 2, 2), 1 << 20).unwrap();
        assert_eq!((small.cluster, small.record), (512, 1024));
    }

    #[test]
    fn hostile_boot_sectors_are_doubts() {
        let len = 8192 * 512;
        for sector in [
            boot(8, 8193, 4, 512, 0xF6),
            boot(8, u64::MAX, 4, 512, 0xF6),
            boot(8, 8191, 0, 512, 0xF6),
            boot(8, 8191, 4, 1023, 0xF6),
            boot(3, 8191, 4, 512, 0xF6),
            boot(0, 8191, 4, 512, 0xF6),
            boot(0xE1, 8191, 4, 512, 0xF6),
            boot(0x90, 8191, 4, 512, 0xF6),
            boot(8, 8191, 4, 512, 0x80),
            boot(8, 8191, 4, 512, 0x7F),
            boot(8, 8191, 4, 512, 0),
        ] {
            assert!(decoded(&sector, len).is_err(), "{:02x?}", &sector[..0x48]);
        }
        let mut fat = boot(8, 8191, 4, 512, 0xF6);
        fat[0x10] = 2;
        assert!(!is_ntfs(&Raw::new(&fat, "boot sector")).unwrap());
    }
}
