//! The answer for whatever no reader understands: all of it.

use super::{Certainty, FileSystem, UsedReport};
use crate::base::{BlockMap, ByteLen, Result};
use crate::block::BlockSource;

/// Answers "in use" for every unit of every partition.
#[derive(Debug, Clone, Copy)]
pub struct Unknown;

impl FileSystem for Unknown {
    fn name(&self) -> &'static str {
        "unknown"
    }

    fn probe(&self, _: &dyn BlockSource) -> Result<bool> {
        Ok(true)
    }

    fn used(&self, partition: &dyn BlockSource) -> Result<UsedReport> {
        // One unit as large as the partition: there is nothing to tell apart.
        let unit = partition.len().max(ByteLen(1));
        Ok(UsedReport {
            kind: self.name().to_owned(),
            unit,
            used: BlockMap::full(1),
            certainty: Certainty::Unknown("its contents are not looked into".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemorySource;

    #[test]
    fn everything_is_used_to_the_last_odd_byte() {
        let report = Unknown
            .used(&MemorySource::new("m", vec![0; 1025]))
            .unwrap();
        assert_eq!(report.used, BlockMap::full(1));
        assert_eq!(report.unit, ByteLen(1025));
        assert!(matches!(report.certainty, Certainty::Unknown(_)));
    }
}
