//! Words of the command line as values.

use super::args::LimitArgs;
use crate::base::{BlockSize, Error, ErrorKind, Result};
use crate::ops::backup::{MIN_PART_LEN, Split};
use crate::ops::{Compression, Limits};

/// A size with a binary suffix: `65536`, `64K`, `64KiB`, `1M`.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(super) fn block_size(text: &str) -> Result<BlockSize> {
    size(text).and_then(BlockSize::new).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "use the block size", format!("{text:?}"))
            .because("it is a power of two from 4K to 1M")
    })
}

pub(super) fn byte_count(text: &str) -> Result<u64> {
    size(text).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "use the size", format!("{text:?}"))
            .because("it is a number of bytes, with K, M, G or T behind it where it is large")
    })
}

pub(super) fn limits(args: &LimitArgs) -> Result<Limits> {
    let bytes = |text: &Option<String>| text.as_deref().map(byte_count).transpose();
    Ok(Limits {
        threads: args.threads,
        memory: bytes(&args.memory)?,
        read: bytes(&args.limit_read)?,
        write: bytes(&args.limit_write)?,
        nice: args.nice,
    })
}

pub(super) fn split(text: &str) -> Result<Split> {
    let parts = |len: &u64| *len >= MIN_PART_LEN;
    match text {
        "auto" => Ok(Split::Auto),
        "none" => Ok(Split::Whole),
        text => size(text).filter(parts).map(Split::Parts).ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                "use the length of parts",
                format!("{text:?}"),
            )
            .because("it is auto, none, or a number of bytes of 1M at least, as in 650M or 4095M")
        }),
    }
}

/// A percentage, with or without its sign, in thousandths.
pub(super) fn share(text: &str) -> Result<u32> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
    let one_digit = tenths.len() == 1;
    let parsed = whole.parse::<u32>().ok().zip(tenths.parse::<u32>().ok());
    parsed
        .filter(|_| one_digit)
        .and_then(|(whole, tenths)| whole.checked_mul(10)?.checked_add(tenths))
        .filter(|thousandths| (1..=1000).contains(thousandths))
        .ok_or_else(|| {
            Error::new(ErrorKind::Usage, "use the share", format!("{text:?}"))
                .because("it is a percentage from 0.1 to 100, such as 5%")
        })
}

pub(super) fn compression(text: &str) -> Result<Compression> {
    let usual = Compression::Zstd(crate::ops::USUAL_LEVEL);
    let parsed = match text {
        "zstd" => Some(usual),
        other => Compression::parse(other),
    };
    parsed.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "use the compression", format!("{text:?}"))
            .because("it is none, auto, zstd, or zstd:LEVEL with a level from -7 to 19 and not 0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_suffixes() {
        assert_eq!(size("65536"), Some(65536));
        assert_eq!(size("64K"), size("64KiB"));
        assert_eq!(size("1m"), Some(1 << 20));
        for bad in ["", "K", "1.5M", "-1", "1X", "99999999999T"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn parts_have_a_length() {
        assert_eq!(split("auto").unwrap(), Split::Auto);
        assert_eq!(split("none").unwrap(), Split::Whole);
        assert_eq!(split("1M").unwrap(), Split::Parts(1 << 20));
        for bad in ["", "Auto", "1023K", "0", "-1M"] {
            assert_eq!(split(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share("5%").unwrap(), 50);
        assert_eq!(share("100").unwrap(), 1000);
        assert_eq!(share("0.1").unwrap(), 1);
        for bad in ["0", "101%", "", "%", "-5", "1.25", "5 %", "99999999999"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn compressions_are_checked() {
        assert_eq!(compression("none").unwrap(), Compression::None);
        assert_eq!(compression("zstd").unwrap(), Compression::Zstd(3));
        assert_eq!(compression("auto").unwrap(), Compression::Auto);
        assert_eq!(compression("zstd:-3").unwrap(), Compression::Zstd(-3));
        for bad in ["zstd:0", "zstd:20", "zstd:x", "gzip", ""] {
            assert_eq!(
                compression(bad).unwrap_err().kind(),
                ErrorKind::Usage,
                "{bad}"
            );
        }
    }
}
