//! Is there anything to compress at all?

use crate::base::to_u64;

/// One run of `RUN` bytes in every `STEP` is looked at, so that a run of bytes a few pages long is not missed.
const STEP: usize = 512;
const RUN: usize = 16;
/// Below this length compressing costs nothing, and a sample says nothing.
const LEAST: usize = 256 << 10;
/// In so many parts the sample is taken, and judged after each.
const PARTS: usize = 8;
/// How much likelier two bytes are alike than in noise, in 1/1024. Compressing what lies below saves less than the
/// share that is wanted: a twentieth of text in noise lies above.
const ALIKE: u64 = 1024 * 103 / 100;

/// Whether `bytes` look like what is compressed or encrypted already: all values are equally frequent in a sample.
/// What is held to be noise is stored as it is, so an error costs room and nothing else.
pub(super) fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < LEAST {
        return false;
    }
    let mut sample = Sample::of_total(bytes.len() / STEP * RUN);
    // What is clearly something else is known by its beginning.
    let part = bytes.len() / PARTS / STEP * STEP;
    bytes.chunks(part).all(|part| {
        sample.add(part);
        sample.is_noise_if_the_rest_is()
    })
}

struct Sample {
    /// Several tables, so that equal neighbours do not wait for each other.
    counts: [[u32; 256]; 4],
    seen: usize,
    total: usize,
}

impl Sample {
    fn of_total(total: usize) -> Sample {
        Sample {
            counts: [[0; 256]; 4],
            seen: 0,
            total,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for run in bytes.chunks_exact(STEP) {
            for four in run[..RUN].chunks_exact(4) {
                for (table, byte) in self.counts.iter_mut().zip(four) {
                    table[usize::from(*byte)] += 1;
                }
            }
            self.seen += RUN;
        }
    }

    fn is_noise_if_the_rest_is(&self) -> bool {
        let of_value = |value: usize| self.counts.iter().map(move |table| u64::from(table[value]));
        let squares = (0..256).map(|value| of_value(value).sum::<u64>().pow(2));
        let squares: u64 = squares.sum();
        let (seen, total) = (to_u64(self.seen), to_u64(self.total));
        let left = total - seen;
        let squares = squares + 2 * seen * left / 256 + squares_of_noise(left);
        squares * 1024 < squares_of_noise(total) * ALIKE
    }
}

/// What the squares of the counts of all values add up to in `count` bytes of noise, in the mean.
fn squares_of_noise(count: u64) -> u64 {
    count * count / 256 + count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// `share` thousandths of text in every 4 KiB of noise.
    fn mixed(share: usize) -> Vec<u8> {
        let mut bytes = noise(1 << 20);
        let text = "what a person writes is not noise, be it said a thousand times; ";
        for page in bytes.chunks_mut(4096) {
            let len = page.len() * share / 1000;
            let words = text.bytes().cycle();
            page[..len]
                .iter_mut()
                .zip(words)
                .for_each(|(to, from)| *to = from);
        }
        bytes
    }

    #[test]
    fn noise_is_noise_and_text_is_not() {
        for len in [LEAST, 1 << 20, 4 << 20] {
            assert!(is_noise(&noise(len)), "{len}");
        }
        assert!(!is_noise(&mixed(1000)));
        assert!(!is_noise(&vec![0; 1 << 20]));
        let counted: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        assert!(!is_noise(&counted));
    }

    #[test]
    fn little_is_lost_where_some_of_it_is_text() {
        for share in 0..200 {
            let bytes = mixed(share);
            let packed = zstd::bulk::compress(&bytes, 3).unwrap();
            let saved = bytes.len().saturating_sub(packed.len());
            if is_noise(&bytes) {
                assert!(saved < bytes.len() / 16, "{share}: {saved}");
            }
        }
        assert!(!is_noise(&mixed(200)));
    }

    #[test]
    fn text_tells_wherever_it_is() {
        let text = "what a person writes is not noise".bytes().cycle();
        let text: Vec<u8> = text.take(128 << 10).collect();
        for at in [0, 400_000, (1 << 20) - text.len()] {
            let mut bytes = noise(1 << 20);
            bytes[at..at + text.len()].copy_from_slice(&text);
            assert!(!is_noise(&bytes), "{at}");
        }
        for len in [LEAST + 1, LEAST + 511, (1 << 20) - 1] {
            assert!(is_noise(&noise(len)), "{len}");
        }
    }

    #[test]
    fn what_is_short_is_compressed() {
        assert!(!is_noise(&noise(LEAST - 1)));
        assert!(!is_noise(&[]));
    }
}
