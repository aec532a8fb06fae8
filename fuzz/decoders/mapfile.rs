//! The map file of ddrescue.

use crate::Target;
use crate::watch::within_memory;
use diskstrata::base::ByteLen;
use diskstrata::block::RescueMap;

pub(crate) const TARGET: Target = Target {
    name: "mapfile",
    prepare: || {},
    run,
};

/// Behind the length of the disk (8) stands the text.
fn run(input: &[u8]) {
    let Some((len, text)) = input.split_at_checked(8) else {
        return;
    };
    let len = ByteLen(u64::from_le_bytes(len.try_into().expect("8 bytes")) & ((1 << 56) - 1));
    let text = String::from_utf8_lossy(text);
    within_memory("map", || {
        let Ok(map) = RescueMap::decode(&text, len) else {
            return;
        };
        let all = map.missing.all();
        assert!(all.iter().all(|e| !e.is_empty() && e.end().0 <= len.0));
        assert!(all.windows(2).all(|pair| pair[0].end() < pair[1].start));
        let sum: u64 = all.iter().map(|e| e.len.0).sum();
        assert_eq!(map.missing.bytes(), sum, "nothing is missing twice");
        let again = RescueMap::decode(&map.encode(len), len).expect("its own map");
        assert_eq!(again.missing, map.missing);
    });
}
