//! Linux swap: the header comes back, the pages do not, and a suspended system does.

use crate::cycle::Cycle;
use crate::kit::privileged::{Loop, privileged};
use crate::kit::{KIB, MIB, bytes, scratch, tools};
use std::path::{Path, PathBuf};

const LEN: u64 = 16 * MIB;
const UUID: &str = "1c0ffee5-0000-4000-8000-000000000001";

/// A file with an area of `area` bytes that has seen use: its pages and what lies behind are random.
fn made(dir: &Path, page: u64, area: u64) -> PathBuf {
    let image = dir.join(format!("swap-{page}-{area}"));
    bytes::create_sparse(&image, LEN);
    let (page_text, area) = (page.to_string(), (area / KIB).to_string());
    let options = ["-q", "-p", &page_text, "-L", "pool", "-U", UUID];
    let file = [image.to_str().unwrap(), &area];
    tools::run("mkswap", &[&options[..], &file].concat());
    bytes::write_random(&image, page, LEN - page, page);
    image
}

/// What programs of the system see: kind, label and UUID.
fn seen(image: &Path) -> String {
    let options = ["--probe", "--output", "export"];
    let said = tools::run(
        "blkid",
        &[&options[..], &[image.to_str().unwrap()]].concat(),
    );
    let fields = said.lines().filter(|line| !line.starts_with("DEVNAME="));
    fields.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_left_out(image: &Path, restored: &Path, start: u64, end: u64) {
    for at in (start..end).step_by(1 << 20) {
        let differs = bytes::first_difference(image, at, restored, at, 4 * KIB);
        assert!(differs.is_some(), "the page at {at} was brought along");
    }
}

#[test]
fn every_page_size_keeps_its_header_and_no_pages() {
    let dir = scratch();
    for page in [4, 8, 16, 32, 64].map(|k| k * KIB) {
        let image = made(dir.path(), page, LEN);
        let cycle = Cycle::of(&image, dir.path());
        cycle.only().assert_mapped("swap");
        assert_eq!(cycle.only().used(), page, "pages of {page}");
        let before = seen(&image);
        assert!(before.contains("LABEL=pool") && before.contains(UUID));
        assert!(before.contains("TYPE=swap"), "{before}");
        assert_eq!(before, seen(&cycle.restored));
        bytes::assert_same_range(&image, 0, &cycle.restored, 0, page);
        assert_left_out(&image, &cycle.restored, page, LEN);
    }
}

#[test]
fn a_restored_area_can_be_used() {
    if !privileged("swap on what was restored") {
        return;
    }
    let dir = scratch();
    let image = made(dir.path(), 4 * KIB, LEN);
    let cycle = Cycle::of(&image, dir.path());
    let device = Loop::new(&cycle.restored);
    let device = device.path().to_str().unwrap();
    assert!(tools::run("swaplabel", &[device]).contains("LABEL: pool"));
    tools::run("swapon", &[device]);
    tools::run("swapoff", &[device]);
}

#[test]
fn what_lies_behind_the_area_and_bad_pages_come_back() {
    let dir = scratch();
    let page = 4 * KIB;
    let image = made(dir.path(), page, LEN / 2);
    // mkswap lists bad pages only when a disk has them.
    let bad = [100u32, 1000];
    bytes::write(&image, 1032, &2u32.to_le_bytes());
    bytes::write(
        &image,
        1536,
        &[bad[0].to_le_bytes(), bad[1].to_le_bytes()].concat(),
    );
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("swap");
    assert_eq!(cycle.only().used(), page + 2 * page + LEN / 2);
    for at in bad.map(|n| u64::from(n) * page) {
        bytes::assert_same_range(&image, at, &cycle.restored, at, page);
    }
    bytes::assert_same_range(&image, LEN / 2, &cycle.restored, LEN / 2, LEN / 2);
    assert_left_out(&image, &cycle.restored, MIB, LEN / 2);
}

#[test]
fn headers_of_the_other_byte_order_are_read() {
    let dir = scratch();
    let image = made(dir.path(), 64 * KIB, LEN);
    for at in [1024, 1028] {
        let mut word = bytes::read(&image, at, 4);
        word.reverse();
        bytes::write(&image, at, &word);
    }
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("swap");
    assert_eq!(cycle.only().used(), 64 * KIB);
    assert!(seen(&cycle.restored).contains("LABEL=pool"));
    assert_eq!(seen(&image), seen(&cycle.restored));
}

/// Marks an area as the kernel does when it has written its memory there ("kernel/power/swap.c",
/// `mark_swapfiles`): the old signature is kept before the new one, and before it where the memory
/// begins.
fn suspend(image: &Path, page: u64, signature: &[u8]) {
    let old = bytes::read(image, page - 10, 10);
    bytes::write(image, page - 20, &old);
    bytes::write(image, page - 32, &77u64.to_le_bytes());
    let mut signature = signature.to_vec();
    signature.resize(10, 0);
    bytes::write(image, page - 10, &signature);
}

#[test]
fn a_suspended_system_comes_back_byte_for_byte() {
    let dir = scratch();
    for (signature, page) in [
        ("S1SUSPEND", 4 * KIB),
        ("S1SUSPEND", 64 * KIB),
        ("S2SUSPEND", 4 * KIB),
        ("ULSUSPEND", 4 * KIB),
        ("LINHIB0001", 16 * KIB),
    ] {
        let dir = dir.path().join(format!("{signature}-{page}"));
        std::fs::create_dir(&dir).unwrap();
        let image = made(&dir, page, LEN);
        suspend(&image, page, signature.as_bytes());
        assert!(seen(&image).contains("TYPE=swsuspend"), "{}", seen(&image));
        let cycle = Cycle::of(&image, &dir);
        cycle.only().assert_mapped("swap, hibernated");
        assert_eq!(cycle.only().used(), LEN);
        bytes::assert_same(&image, &cycle.restored);
    }
}

#[test]
fn tux_on_ice_comes_back_byte_for_byte() {
    let dir = scratch();
    let image = made(dir.path(), 4 * KIB, LEN);
    // Its header takes the place of all that mkswap has written.
    bytes::write_random(&image, 0, 4 * KIB, 7);
    bytes::write(&image, 0, b"\xED\xC3\x02\xE9\x98\x56\xE5\x0C");
    assert!(seen(&image).contains("TYPE=swsuspend"), "{}", seen(&image));
    let cycle = Cycle::of(&image, dir.path());
    cycle.only().assert_mapped("swap, hibernated");
    bytes::assert_same(&image, &cycle.restored);
}

#[test]
fn old_and_damaged_headers_take_everything() {
    let dir = scratch();
    for (name, at, patch, why) in [
        ("version-0", 4086, &b"SWAP-SPACE"[..], "version 0"),
        ("version-2", 1024, &[2, 0, 0, 0], "version 0x2"),
        ("longer", 1028, &[0, 0, 1, 0], "bytes long"),
    ] {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let image = made(&dir, 4 * KIB, LEN);
        bytes::write(&image, at, patch);
        let cycle = Cycle::of(&image, &dir);
        cycle.only().assert_whole("swap", why);
        bytes::assert_same(&image, &cycle.restored);
    }
}
