//! A disk map as an SVG picture for reports: one file without scripts, fonts or links.

use super::clean;
use super::map_bands::{Band, bands};
use super::map_marks::{Mark, how_to_read, meanings, short_id};
use super::words::cut;
use crate::base::ByteLen;
use crate::ops::map::{Cell, DiskMap};
use std::fmt::Write;
use std::ops::Range;

/// How many cells to ask for when a map becomes a picture: a page of them.
pub(in crate::cli) const SVG_CELLS: usize = 24 * COLUMNS;

// Lengths in pixels.
const COLUMNS: usize = 100;
const CELL: usize = 9;
const ROW: usize = 15;
const MARGIN: usize = 28;
/// Left of the cells: where on the disk a row begins.
const GUTTER: usize = 76;
const WIDTH: usize = MARGIN + GUTTER + COLUMNS * CELL + MARGIN;
const LEFT: usize = MARGIN + GUTTER;
/// Columns of a title, so that it does not run into the facts on its right.
const TITLE: usize = 44;

/// Each mark has its own lightness, so that a print without colours can be read, and what could not
/// be read has stripes.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.h{font-size:18px;font-weight:600}\
.b{font-weight:600}\
.f{fill:#57606a}\
.p{font-size:11px;fill:#57606a;text-anchor:end}\
.e{text-anchor:end}\
.a{fill:#b00020;font-weight:600}\
.X{fill:url(#x);stroke:#c8001e;stroke-width:2}\
.C{fill:#e36209}\
.c{fill:#ffc48a}\
.D{fill:#0b4f9e}\
.d{fill:#4c8fd6}\
.s{fill:#a5cdf2}\
.Z{fill:#c9d1d9}\
.U{fill:#eef1f4}";

/// `#x`: red and white stripes. `#g`: the white lines between cells, drawn over runs of equal ones.
fn definitions() -> String {
    format!(
        "<defs>\
         <pattern id=\"x\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\">\
         <rect width=\"4\" height=\"4\" fill=\"#c8001e\"/>\
         <rect width=\"1.2\" height=\"4\" fill=\"#ffffff\"/></pattern>\
         <pattern id=\"g\" x=\"{LEFT}\" width=\"{CELL}\" height=\"{ROW}\" \
         patternUnits=\"userSpaceOnUse\">\
         <rect x=\"{}\" width=\"1\" height=\"{ROW}\" fill=\"#ffffff\"/></pattern>\
         </defs>\n",
        CELL - 1,
    )
}

/// The picture. Cells show what [`super::map()`] draws; resting on them tells their bytes.
pub(in crate::cli) fn map_svg(map: &DiskMap) -> String {
    let mut page = Page {
        body: String::new(),
        y: MARGIN,
    };
    page.heading(map);
    for band in &bands(map) {
        page.band(band, map.has_parent());
    }
    page.legend(map);
    let height = page.y + MARGIN;
    let title = escape(&title(map));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n{}\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n{}</svg>\n",
        definitions(),
        page.body,
    )
}

fn title(map: &DiskMap) -> String {
    let image = &map.image;
    format!(
        "Disk of {}: set {}, image {}",
        ByteLen(map.disk_bytes),
        cut(&clean(&image.set), TITLE, true),
        short_id(&image.id)
    )
}

/// The picture while it grows downwards.
struct Page {
    body: String,
    y: usize,
}

impl Page {
    /// Adds one line of text with its foot at the current height.
    fn text(&mut self, x: usize, class: &str, text: &str) {
        let (y, text) = (self.y, escape(text));
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>\n"
        ));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        let _ = self.body.write_fmt(text);
    }

    fn heading(&mut self, map: &DiskMap) {
        let image = &map.image;
        self.y += 14;
        self.text(MARGIN, "h", &title(map));
        self.y += 22;
        let time = image.time.replace('T', " ").replace('Z', " UTC");
        let mut line = format!("number {}, {}, {time}", image.sequence, image.kind);
        if let Some(parent) = &image.parent {
            line.push_str(&format!(", parent {}", short_id(parent)));
        }
        self.text(MARGIN, "f", &clean(&line));
        self.y += 10;
    }

    fn band(&mut self, band: &Band<'_>, parent: bool) {
        self.y += 28;
        self.text(MARGIN, "b", &cut(&band.title, TITLE, true));
        let (x, y) = (WIDTH - MARGIN, self.y);
        self.push(format_args!("<text x=\"{x}\" y=\"{y}\" class=\"e\">"));
        for (index, fact) in band.facts(parent).iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let class = if fact.alarm { " class=\"a\"" } else { "" };
            let text = escape(&fact.text);
            self.push(format_args!("{comma}<tspan{class}>{text}</tspan>"));
        }
        self.push(format_args!("</text>\n"));
        self.y += 8;
        for first in (0..band.cells.len()).step_by(COLUMNS) {
            self.row(band, first, parent);
        }
    }

    /// Up to one row of cells from cell `first` of the band on; equal neighbours are one rectangle.
    fn row(&mut self, band: &Band<'_>, first: usize, parent: bool) {
        let end = band.cells.len().min(first + COLUMNS);
        let at = ByteLen(band.bytes_of(first..first).0.max(band.start));
        self.y += ROW - 4;
        self.text(LEFT - 8, "p", &at.to_string());
        self.y -= ROW - 4;
        let marks: Vec<Mark> = band.cells[first..end]
            .iter()
            .map(|cell| Mark::of(cell, parent))
            .collect();
        let mut from = first;
        let mut alarms = Vec::new();
        for run in marks.chunk_by(|a, b| a == b) {
            let cells = from..from + run.len();
            from = cells.end;
            if run[0] == Mark::Unreadable {
                alarms.push(cells);
            } else {
                self.run(band, first, cells, run[0], parent);
            }
        }
        let (y, width) = (self.y, (end - first) * CELL);
        self.push(format_args!(
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width}\" height=\"{ROW}\" fill=\"url(#g)\" \
             pointer-events=\"none\"/>\n"
        ));
        // Last, so that nothing lies over their frames.
        for cells in alarms {
            self.run(band, first, cells, Mark::Unreadable, parent);
        }
        self.y += ROW;
    }

    /// Cells of a row, which begins with cell `first`, that all show `mark`.
    fn run(
        &mut self,
        band: &Band<'_>,
        first: usize,
        cells: Range<usize>,
        mark: Mark,
        parent: bool,
    ) {
        let (x, width) = (LEFT + (cells.start - first) * CELL, cells.len() * CELL);
        let (y, height, class) = (self.y, ROW - 1, class(mark));
        let tip = escape(&tip(band, cells, parent));
        self.push(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
             class=\"{class}\"><title>{tip}</title></rect>\n"
        ));
    }

    fn legend(&mut self, map: &DiskMap) {
        self.y += 22;
        let (x, y) = (WIDTH - MARGIN, self.y);
        self.push(format_args!(
            "<path d=\"M{MARGIN} {y}H{x}\" stroke=\"#d0d7de\"/>\n"
        ));
        self.y += 6;
        for meaning in meanings(map) {
            self.y += 20;
            for (index, mark) in meaning.marks.iter().enumerate() {
                let (x, y) = (MARGIN + index * 22, self.y - 11);
                let class = class(*mark);
                self.push(format_args!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"18\" height=\"{}\" class=\"{class}\"/>\n",
                    ROW - 1
                ));
            }
            let size = match meaning.bytes {
                0 => "none".to_owned(),
                bytes => ByteLen(bytes).to_string(),
            };
            self.text(LEFT, "b", meaning.name);
            self.text(LEFT + 180, "e", &size);
            self.text(LEFT + 240, "e", &meaning.share);
            self.text(LEFT + 264, "f", meaning.note);
        }
        self.y += 8;
        for sentence in how_to_read(map) {
            self.y += 20;
            self.text(MARGIN, "f", &sentence);
        }
    }
}

fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Unreadable => "X",
        Mark::MuchChanged => "C",
        Mark::LittleChanged => "c",
        Mark::FullData => "D",
        Mark::HalfData => "d",
        Mark::SparseData => "s",
        Mark::Zero => "Z",
        Mark::Unused => "U",
    }
}

/// What a run of cells of a band holds, to the byte where that matters to somebody who reads it.
fn tip(band: &Band<'_>, cells: Range<usize>, parent: bool) -> String {
    let (start, end) = band.bytes_of(cells.clone());
    let inside = &band.cells[cells];
    let sum = inside
        .iter()
        .fold(Cell::default(), |sum, cell| sum.plus(cell));
    let mut text = format!(
        "bytes {start}..{end}, {} at {}",
        ByteLen(end.saturating_sub(start)),
        ByteLen(start)
    );
    let changed = if parent { sum.changed } else { 0 };
    for (bytes, name) in [
        (sum.unreadable, "unreadable"),
        (changed, "changed"),
        (sum.data, "data"),
        (sum.zero, "zero"),
        (sum.unused, "unused"),
    ] {
        if bytes > 0 {
            text.push_str(&format!("\n{} {name}", ByteLen(bytes)));
        }
    }
    text
}

/// `text` for the inside of an element. What XML 1.0 cannot hold at all is replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::map_testing::{GIB, MIB, Sample, any_map, lived_in};
    use super::*;
    use proptest::prelude::*;
    use roxmltree::{Document, Node};

    fn number(node: &Node<'_, '_>, name: &str) -> usize {
        node.attribute(name).map_or(0, |n| n.parse().unwrap())
    }

    /// The rectangles that stand for cells: those that can be asked for their bytes.
    fn runs<'a>(page: &'a Document<'_>) -> Vec<Node<'a, 'a>> {
        let rects = page
            .descendants()
            .filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "rect")));
        rects.filter(|rect| rect.has_children()).collect()
    }

    fn columns(page: &Document<'_>) -> usize {
        runs(page)
            .iter()
            .map(|rect| number(rect, "width") / CELL)
            .sum()
    }

    #[test]
    fn labels_from_the_disk_stay_text() {
        let name = "\x1b\u{ffff}</text><script>'&\"</script>";
        let picture = map_svg(
            &Sample::new(GIB, 100)
                .part(1, "<b>", name, MIB, 900 * MIB)
                .map(),
        );
        let page = Document::parse(&picture).unwrap();
        let texts: Vec<&str> = page.descendants().filter_map(|n| n.text()).collect();
        let shown = "1 <b> \u{fffd}\u{fffd}</text><script>'&\"</script>";
        assert!(texts.contains(&shown), "{texts:?}");
        assert!(page.descendants().all(|n| n.tag_name().name() != "script"));
    }

    #[test]
    fn equal_neighbours_are_one_rectangle() {
        let picture = map_svg(&Sample::new(500 * GIB, SVG_CELLS).data(0, 500 * GIB).map());
        let page = Document::parse(&picture).unwrap();
        assert_eq!(runs(&page).len(), SVG_CELLS / COLUMNS);
        assert_eq!(columns(&page), SVG_CELLS);
        let picture = map_svg(&lived_in(SVG_CELLS).map());
        assert!(picture.len() < 128 << 10, "{} bytes", picture.len());
    }

    #[test]
    fn a_cell_tells_its_bytes() {
        let map = Sample::new(100 * MIB, 100)
            .data(0, 99 * MIB)
            .unreadable(99 * MIB, 4096)
            .parent()
            .map();
        let picture = map_svg(&map);
        let page = Document::parse(&picture).unwrap();
        let tips: Vec<&str> = runs(&page)
            .iter()
            .filter_map(|rect| rect.first_child()?.text())
            .collect();
        assert_eq!(
            tips,
            [
                "bytes 0..103809024, 99 MiB at 0 B\n99 MiB data",
                "bytes 103809024..104857600, 1 MiB at 99 MiB\n\
                 4 KiB unreadable\n4 KiB changed\n1020 KiB unused",
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_picture_is_xml_alone_and_holds_every_cell(map in any_map()) {
            let picture = map_svg(&map);
            let page = Document::parse(&picture).unwrap();
            let cells: usize = bands(&map).iter().map(|b| b.cells.len()).sum();
            prop_assert_eq!(columns(&page), cells);
            let root = page.root_element();
            let (width, height) = (number(&root, "width"), number(&root, "height"));
            for rect in page.descendants().filter(|n| n.tag_name().name() == "rect") {
                if rect.attribute("class").is_some() {
                    prop_assert!(number(&rect, "x") + number(&rect, "width") <= width);
                    prop_assert!(number(&rect, "y") + number(&rect, "height") <= height);
                }
            }
            let known = ["svg", "title", "style", "defs", "pattern", "rect", "text", "tspan", "path"];
            for node in page.descendants().filter(Node::is_element) {
                prop_assert!(known.contains(&node.tag_name().name()));
                prop_assert!(node.attributes().all(|a| a.name() != "href"));
            }
            let red = picture.contains("class=\"X\"><title>");
            prop_assert_eq!(red, map.totals.unreadable > 0);
        }
    }
}
