//! The answer for whatever no reader understands: all of it.

use super::{Certainty, FileSystem, UsedReport};
use crate::base::{BlockMap, ByteLen, Result};
use crate::block::BlockSource;

/// The unit of the report: the smallest sector, so that any partition is whole units but the last.
const UNIT: u64 = 512;

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
        Ok(UsedReport {
            kind: self.name().to_owned(),
            unit: ByteLen(UNIT),
            used: BlockMap::full(partition.len().0.div_ceil(UNIT)),
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
        assert_eq!(report.used.count(), 3);
        assert!(matches!(report.certainty, Certainty::Unknown(_)));
    }
}
