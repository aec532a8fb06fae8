//! A disk map drawn with characters.

use super::clean;
use super::map_bands::{Band, bands};
use super::map_marks::{Mark, how_to_read, meanings, short_id};
use super::screen::Screen;
use super::words::{self, Style, Word};
use crate::base::ByteLen;
use crate::ops::map::DiskMap;
use std::path::Path;

/// Columns before the cells of a row: where on the disk the row begins.
const GUTTER: usize = 11;
/// Columns for marks before what they mean.
const MARKS: usize = 4;
/// Rows that the cells of a map fill, were there no partitions.
const ROWS: usize = 16;
/// The least columns for cells, however narrow the screen.
const LEAST: usize = 8;

/// How many cells to ask for when a map is drawn `width` columns wide: about 16 rows.
pub(in crate::cli) fn cells_for(width: usize) -> usize {
    ROWS * columns(width)
}

fn columns(width: usize) -> usize {
    width.saturating_sub(GUTTER).max(LEAST)
}

/// The map: the image, a band for each partition and each wide gap, and what the marks mean.
pub(in crate::cli) fn map(map: &DiskMap, screen: Screen) -> String {
    let mut text = words::lines(&heading(map), screen);
    let mut rows_before = usize::MAX;
    for band in &bands(map) {
        // Many small partitions stay together.
        let rows_here = band.cells.len().div_ceil(columns(screen.width));
        if rows_before.max(rows_here) > 1 {
            text.push('\n');
        }
        rows_before = rows_here;
        let mut label = vec![Word::new(band.title.clone(), Style::Strong)];
        label.extend(band.facts(map.has_parent()).into_iter().map(|fact| {
            let style = if fact.alarm {
                Style::Alarm
            } else {
                Style::Plain
            };
            Word::new(fact.text, style)
        }));
        text.push_str(&words::lines(&label, screen));
        rows(&mut text, band, map.has_parent(), screen);
    }
    text.push('\n');
    legend(&mut text, map, screen);
    text
}

/// What is said of a picture that was drawn.
pub(in crate::cli) fn drawn(file: &Path) -> String {
    format!(
        "Drew the map into {}.\n",
        clean(&file.display().to_string())
    )
}

fn heading(map: &DiskMap) -> Vec<Word> {
    let image = &map.image;
    let time = image.time.replace('T', " ").replace('Z', " UTC");
    let mut words = vec![
        Word::new(format!("image {}", short_id(&image.id)), Style::Strong),
        Word::plain(format!("set {}", clean(&image.set))),
        Word::plain(format!("number {}", image.sequence)),
        Word::plain(image.kind.to_owned()),
        Word::plain(clean(&time)),
        Word::plain(format!("disk of {}", ByteLen(map.disk_bytes))),
    ];
    if let Some(parent) = &image.parent {
        words.push(Word::plain(format!("parent {}", short_id(parent))));
    }
    if map.totals.unreadable > 0 {
        let text = format!("{} unreadable", ByteLen(map.totals.unreadable));
        words.push(Word::new(text, Style::Alarm));
    }
    words
}

/// The cells of a band, each row behind the position at which it begins.
fn rows(text: &mut String, band: &Band<'_>, parent: bool, screen: Screen) {
    let columns = columns(screen.width);
    for (index, row) in band.cells.chunks(columns).enumerate() {
        let at = band.bytes_of(index * columns..index * columns).0;
        let at = ByteLen(at.max(band.start)).to_string();
        let at = format!("{at:>width$} ", width = GUTTER - 1);
        text.push_str(&Style::Faint.paint(&at, screen));
        let marks: Vec<Mark> = row.iter().map(|cell| Mark::of(cell, parent)).collect();
        for run in marks.chunk_by(|a, b| style(*a) == style(*b)) {
            let glyphs: String = run.iter().map(|mark| glyph(*mark, screen)).collect();
            text.push_str(&style(run[0]).paint(&glyphs, screen));
        }
        text.push('\n');
    }
}

/// The character of a mark. All are in the fonts of a bare Linux console, where a rescue happens.
fn glyph(mark: Mark, screen: Screen) -> char {
    let (rich, ascii) = match mark {
        Mark::Unreadable => ('X', 'X'),
        Mark::MuchChanged => ('●', 'O'),
        Mark::LittleChanged => ('o', 'o'),
        Mark::FullData => ('█', '#'),
        Mark::HalfData => ('▒', '+'),
        Mark::SparseData => ('░', ':'),
        Mark::Zero => ('─', '_'),
        Mark::Unused => ('·', '.'),
    };
    if screen.unicode { rich } else { ascii }
}

fn style(mark: Mark) -> Style {
    match mark {
        Mark::Unreadable => Style::Alarm,
        Mark::MuchChanged | Mark::LittleChanged => Style::Changed,
        Mark::FullData | Mark::HalfData | Mark::SparseData => Style::Data,
        Mark::Zero | Mark::Unused => Style::Faint,
    }
}

fn legend(text: &mut String, map: &DiskMap, screen: Screen) {
    for meaning in meanings(map) {
        let glyphs: String = meaning.marks.iter().map(|m| glyph(*m, screen)).collect();
        let size = match meaning.bytes {
            0 => "none".to_owned(),
            bytes => ByteLen(bytes).to_string(),
        };
        let line = format!("{:10} {size:>10} {:>6}  ", meaning.name, meaning.share);
        let gap = " ".repeat(MARKS.saturating_sub(meaning.marks.len()));
        let style = meaning.marks.first().map_or(Style::Plain, |m| style(*m));
        text.push_str(&style.paint(&glyphs, screen));
        text.push_str(&gap);
        let room = screen.width.saturating_sub(MARKS + line.len());
        let line = if meaning.note.len() <= room {
            line + meaning.note
        } else {
            line
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for sentence in how_to_read(map) {
        text.push_str(&words::paragraph(&sentence, screen.width));
    }
}

#[cfg(test)]
mod tests {
    use super::super::map_testing::{GIB, KIB, MIB, Sample, any_map, lived_in};
    use super::*;
    use crate::ops::map::Class;
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    const PLAIN: Screen = Screen {
        width: 80,
        color: false,
        unicode: true,
    };

    /// 80 MiB in cells of 1 MiB: a partition of less than a cell, one of many rows, a wide gap.
    fn small() -> Sample {
        Sample::new(80 * MIB, 80)
            .part(1, "vfat", "EFI", MIB / 4, MIB / 4)
            .part(2, "ext4", "root", MIB / 2, 71 * MIB)
            .data(MIB / 4, 100 * KIB)
            .data(MIB, 20 * MIB)
            .changed(22 * MIB, 4 * KIB)
            .changed(23 * MIB, 512 * KIB)
            .data(30 * MIB, 512 * KIB)
            .data(31 * MIB, 4 * KIB)
            .zero(40 * MIB, 6 * MIB)
            .unreadable(65 * MIB, 4 * KIB)
    }

    #[test]
    fn an_incremental_image_is_drawn() {
        let expected = "\
image 9f3a2c71, set laptop, number 12, incremental, 2026-03-04 10:00:00 UTC,
    disk of 80 MiB, parent 5d1e77aa, 4 KiB unreadable

1 vfat EFI, 256 KiB at 256 KiB, 100 KiB data, unchanged
   256 KiB ▒

2 ext4 root, 71 MiB at 512 KiB, 21 MiB data, 520 KiB changed, 4 KiB unreadable
   512 KiB ░████████████████████·o●······▒░········──────···················X···
    69 MiB ···

not partitioned, 8.5 MiB at 71.5 MiB, no data, unchanged
    72 MiB ········

X   unreadable      4 KiB   <1 %  in blocks that could not be read whole
o●  changed       520 KiB    1 %  a little, a tenth of the cell or more
░▒█ data         21.1 MiB   26 %  up to a third, two thirds, all of the cell
─   zero            6 MiB    8 %
·   unused       52.9 MiB   66 %
A cell is 1 MiB of the disk and shows the first of these that is in it.
Changed is what is new since image 5d1e77aa; it is also counted as what it is
now.
The command strata show lists the bytes that could not be read.
";
        assert_eq!(map(&small().parent().map(), PLAIN), expected);
    }

    #[test]
    fn a_full_image_is_drawn_without_changes_in_ascii_and_narrow() {
        let screen = Screen {
            width: 40,
            color: false,
            unicode: false,
        };
        let expected = "\
image 9f3a2c71, set laptop, number 12,
    full, 2026-03-04 10:00:00 UTC,
    disk of 80 MiB, 4 KiB unreadable

1 vfat EFI, 256 KiB at 256 KiB,
    100 KiB data
   256 KiB +

2 ext4 root, 71 MiB at 512 KiB,
    21 MiB data, 4 KiB unreadable
   512 KiB :####################.:+.....
    29 MiB .+:........______............
    58 MiB .......X......

not partitioned, 8.5 MiB at 71.5 MiB,
    no data
    72 MiB ........

X   unreadable      4 KiB   <1 %
:+# data         21.1 MiB   26 %
_   zero            6 MiB    8 %
.   unused       52.9 MiB   66 %
A cell is 1 MiB of the disk and shows
the first of these that is in it.
The command strata show lists the bytes
that could not be read.
";
        assert_eq!(map(&small().map(), screen), expected);
    }

    #[test]
    fn small_partitions_stand_together() {
        let map_of = |count: u32| {
            let len = 100 * GIB;
            let parts = (1..=count).fold(Sample::new(len, 1000), |sample, n| {
                sample.part(n, "ext4", "", u64::from(n) * MIB, MIB)
            });
            map(&parts.map(), PLAIN)
        };
        let (few, many) = (map_of(1).lines().count(), map_of(128).lines().count());
        assert_eq!(many - few, 127 * 2);
    }

    #[test]
    fn the_smallest_and_the_largest_disk_are_drawn() {
        let text = map(&Sample::new(4096, 1000).data(0, 4096).map(), PLAIN);
        assert!(text.contains("\nnot partitioned, 4 KiB at 0 B, 4 KiB data\n       0 B █\n"));
        let huge = Sample::new(64 << 50, cells_for(80)).run(0, 64 << 50, Class::Zero, true);
        let text = map(&huge.map(), PLAIN);
        assert!(text.contains("zero           64 PiB  100 %"), "{text}");
        assert_eq!(text.matches('─').count(), cells_for(80) + 1);
    }

    #[test]
    fn texts_from_the_disk_cannot_steer_the_terminal() {
        let sample = small().part(3, "\x1b[2J", "a\nb\u{202e}c\x07", 73 * MIB, MIB);
        let text = map(&sample.map(), PLAIN);
        assert!(
            text.contains("\n3 \u{fffd}[2J a\u{fffd}b\u{fffd}c\u{fffd}, 1 MiB"),
            "{text}"
        );
    }

    #[test]
    fn colour_adds_nothing_but_escape_sequences() {
        let disk = lived_in(cells_for(80)).map();
        let color = Screen {
            color: true,
            ..PLAIN
        };
        let mut text = String::new();
        for (index, part) in map(&disk, color).split('\x1b').enumerate() {
            let behind = if index == 0 {
                part
            } else {
                part.split_once('m').unwrap().1
            };
            text.push_str(behind);
        }
        assert_eq!(text, map(&disk, PLAIN));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_line_is_too_wide_and_no_cell_is_left_out(
            disk in any_map(),
            width in 40usize..=400,
            unicode: bool,
        ) {
            let screen = Screen { width, color: false, unicode };
            let text = map(&disk, screen);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{} columns: {line:?}", line.width());
            }
            for band in &bands(&disk) {
                let mut text = String::new();
                rows(&mut text, band, disk.has_parent(), screen);
                let drawn = text.lines().map(|l| l.chars().count() - GUTTER).sum::<usize>();
                prop_assert_eq!(drawn, band.cells.len());
            }
            if disk.totals.unreadable > 0 {
                prop_assert!(text.matches('X').count() > 1);
            }
        }
    }
}
