//! XFS: every flavour that its mkfs makes and this kernel mounts, version 4 without mounting, and
//! logs in every state, against what `xfs_logprint` says of them.

use crate::aged::{self, POSIX};
use crate::cycle::{Cycle, Part};
use crate::kit::bytes::{self, Stream};
use crate::kit::privileged::{Loop, Mount, privileged_with_fs};
use crate::kit::store::Store;
use crate::kit::{KIB, MIB, TIB, long, scratch, tools};
use crate::manifest::Manifest;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// mkfs that also makes volumes as small as before version 6: three variables of its own tests
/// allow it.
fn mkfs(image: &Path, len: u64, options: &[&str]) {
    bytes::create_sparse(image, len);
    let image = image.to_str().unwrap();
    let small = ["TEST_DIR=x", "TEST_DEV=x", "QA_CHECK_FS=x"];
    let args = [&small[..], &["mkfs.xfs", "-q", "-f"], options, &[image]].concat();
    tools::run("env", &args);
}

/// What `xfs_db` prints for these commands.
fn db(image: &Path, commands: &[&str]) -> String {
    let mut args = vec!["-r"];
    args.extend(commands.iter().flat_map(|c| ["-c", c]));
    args.push(image.to_str().unwrap());
    tools::run("xfs_db", &args)
}

/// Changes bytes of the superblock, and its checksum to match; `xfs_db` does not write what it does
/// not know.
fn edit(image: &Path, at: usize, value: &[u8]) {
    let mut sector = bytes::read(image, 0, 512);
    sector[at..at + value.len()].copy_from_slice(value);
    sector[0xE0..0xE4].fill(0);
    let sum = crc32c::crc32c(&sector);
    sector[0xE0..0xE4].copy_from_slice(&sum.to_le_bytes());
    bytes::write(image, 0, &sector);
}

/// The numbers behind `name = `, one for each time that it is printed.
fn numbers(printed: &str, name: &str) -> Vec<u64> {
    let values = printed.lines().filter_map(|line| {
        let (found, value) = line.split_once(" = ")?;
        (found == name).then_some(value)
    });
    values
        .map(|v| match v.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => v.parse().unwrap(),
        })
        .collect()
}

fn of_superblock(image: &Path, name: &str) -> u64 {
    numbers(&db(image, &["sb 0", &format!("p {name}")]), name)[0]
}

/// The sum of a field over the free-space headers of all groups.
fn of_groups(image: &Path, name: &str) -> u64 {
    let print = format!("p {name}");
    let groups = of_superblock(image, "agcount");
    let commands: Vec<String> = (0..groups).map(|g| format!("agf {g}")).collect();
    let commands: Vec<&str> = commands.iter().flat_map(|c| [c.as_str(), &print]).collect();
    numbers(&db(image, &commands), name).iter().sum()
}

/// Fails unless the free bytes are those that the groups' headers count, and those fit what else
/// the tools tell: the superblock also counts the blocks set aside for the trees (`flcount`) and
/// those in the trees (`btreeblks`), and `freesp` those set aside.
#[track_caller]
fn assert_free(part: Part<'_>, image: &Path) {
    let free = of_groups(image, "freeblks");
    let aside = of_groups(image, "flcount");
    let trees = of_groups(image, "btreeblks");
    assert_eq!(free + aside + trees, of_superblock(image, "fdblocks"));
    let listed = db(image, &["freesp -s"]);
    let listed = listed
        .lines()
        .find_map(|l| l.strip_prefix("total free blocks "));
    assert_eq!(listed.unwrap().trim(), (free + aside).to_string());
    part.assert_mapped("XFS");
    assert_eq!(part.free(), free * of_superblock(image, "blocksize"));
}

#[track_caller]
fn assert_sound(image: &Path) {
    tools::run("xfs_repair", &["-n", image.to_str().unwrap()]);
}

/// Mounts `image` on the new folder `at` for the time of `f`.
fn mounted<T>(image: &Path, at: &Path, f: impl FnOnce(&Path) -> T) -> T {
    let device = Loop::new(image);
    let mount = Mount::new(device.path(), at);
    let result = f(mount.path());
    drop(mount);
    fs::remove_dir(at).unwrap();
    result
}

/// As [`mounted`], for a look at the files.
fn manifest(image: &Path, at: &Path) -> Manifest {
    let device = Loop::read_only(image);
    let mount = Mount::new(device.path(), at);
    let result = Manifest::of(mount.path());
    drop(mount);
    fs::remove_dir(at).unwrap();
    result
}

/// A file with every other block of it punched out, so that the trees of free space grow.
fn punch(root: &Path, len: u64, block: u64) {
    let path = root.join("punched");
    fs::write(&path, Stream::new(3).bytes(len)).unwrap();
    aged::sync(root);
    let file = File::options().write(true).open(&path).unwrap();
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for at in (0..len).step_by(usize::try_from(2 * block).unwrap()) {
        let (at, block) = (i64::try_from(at).unwrap(), i64::try_from(block).unwrap());
        fallocate(&file, flags, at, block).unwrap();
    }
}

/// Images an unmounted volume and checks everything about what comes back.
fn check_cycle(image: &Path, dir: &Path) {
    let mount = dir.join("m");
    let files = manifest(image, &mount);
    assert!(files.len() > 1000);
    let cycle = Cycle::of(image, dir);
    assert_free(cycle.only(), image);
    assert_sound(&cycle.restored);
    files.assert_same(&manifest(&cycle.restored, &mount));
    fs::remove_file(&cycle.restored).unwrap();
}

fn round_trip(options: &[&str], len: u64, block: u64) {
    let dir = scratch();
    let image = dir.path().join("disk");
    mkfs(&image, len, options);
    mounted(&image, &dir.path().join("m"), |root| {
        aged::age(root, 6 * MIB, block, POSIX);
        punch(root, 1200 * block, block);
    });
    assert_eq!(of_superblock(&image, "blocksize"), block);
    check_cycle(&image, dir.path());
}

#[test]
fn as_mkfs_makes_it() {
    if !privileged_with_fs("xfs", "XFS as mkfs makes it") {
        return;
    }
    round_trip(&["-l", "size=10m", "-L", "data"], 80 * MIB, 4096);
}

#[test]
fn reverse_map_small_blocks_many_groups() {
    if !privileged_with_fs("xfs", "XFS with a reverse map and trees of two levels") {
        return;
    }
    let dir = scratch();
    let image = dir.path().join("disk");
    // 7 groups, the last one shorter, and a tail that no block fits in.
    let options = "-b size=1024 -d agcount=7 -m rmapbt=1 -i nrext64=1 -l size=8m,sunit=64";
    let options: Vec<&str> = options.split(' ').collect();
    mkfs(&image, 128 * MIB + 1536, &options);
    mounted(&image, &dir.path().join("m"), |root| {
        aged::age(root, 6 * MIB, 7, POSIX);
        punch(root, 4 * MIB, 1024);
    });
    let levels =
        "agf 0/p bnolevel/agf 1/p bnolevel/agf 2/p bnolevel/agf 3/p bnolevel/agf 4/p bnolevel";
    let levels = db(&image, &levels.split('/').collect::<Vec<_>>());
    assert!(numbers(&levels, "bnolevel").contains(&2), "{levels}");
    check_cycle(&image, dir.path());
}

#[test]
fn large_sectors_and_log_stripes() {
    if !privileged_with_fs("xfs", "XFS with sectors of 4096 bytes") {
        return;
    }
    round_trip(
        &[
            "-s",
            "size=4096",
            "-l",
            "size=20m,su=256k",
            "-i",
            "size=2048",
        ],
        96 * MIB,
        4096,
    );
}

#[test]
fn without_later_features() {
    if !privileged_with_fs("xfs", "XFS of version 5 with few features") {
        return;
    }
    let options = "-m finobt=0,reflink=0,bigtime=0 -i sparse=0 -l size=10m,agnum=2";
    round_trip(&options.split(' ').collect::<Vec<_>>(), 80 * MIB, 4096);
}

#[test]
fn other_block_sizes_and_features() {
    if !long() || !privileged_with_fs("xfs", "XFS with more block sizes") {
        return;
    }
    for (options, block) in [
        ("-b size=2048 -l size=10m,su=32k -m inobtcount=0", 2048),
        ("-b size=8192 -l size=20m -d agcount=3", 8192),
        ("-b size=64k -l size=40m", 64 * KIB),
        ("-s size=4096 -m rmapbt=1,reflink=0 -l size=20m", 4096),
        ("-b size=1024 -m reflink=0 -l size=9m -n size=8192", 1024),
    ] {
        round_trip(&options.split(' ').collect::<Vec<_>>(), 300 * MIB, block);
    }
}

#[test]
fn grown() {
    if !privileged_with_fs("xfs", "XFS that was grown") {
        return;
    }
    let dir = scratch();
    let (image, mount) = (dir.path().join("disk"), dir.path().join("m"));
    mkfs(&image, 64 * MIB, &["-l", "size=8m"]);
    mounted(&image, &mount, |root| aged::age(root, 6 * MIB, 5, POSIX));
    let groups = of_superblock(&image, "agcount");
    let file = File::options().write(true).open(&image).unwrap();
    file.set_len(150 * MIB + 3 * KIB).unwrap();
    drop(file);
    mounted(&image, &mount, |root| {
        tools::run("xfs_growfs", &[root]);
        let more = root.join("more");
        fs::create_dir(&more).unwrap();
        aged::age(&more, 6 * MIB, 6, POSIX);
    });
    assert!(of_superblock(&image, "agcount") > groups);
    check_cycle(&image, dir.path());
}

/// Version 4, which this kernel may not mount: files from a prototype, read by `xfs_db`.
fn version_4(options: &[&str], len: u64) {
    let dir = scratch();
    let image = dir.path().join("disk");
    let mut stream = Stream::new(4);
    let mut proto = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (n, len) in [1, 4096, 100_000, 3_000_001].into_iter().enumerate() {
        let (name, source) = (format!("file{n}"), dir.path().join(format!("source{n}")));
        let content = stream.bytes(len);
        fs::write(&source, &content).unwrap();
        proto.push_str(&format!("{name} ---644 0 0 {}\n", source.display()));
        files.push((name, content));
    }
    proto.push_str("$\n");
    let proto_file = dir.path().join("proto");
    fs::write(&proto_file, proto).unwrap();
    let proto_file = ["-p", proto_file.to_str().unwrap()];
    let version = ["-m", "crc=0"];
    mkfs(&image, len, &[&version[..], options, &proto_file].concat());
    assert_eq!(of_superblock(&image, "versionnum") & 0xF, 4);

    let cycle = Cycle::of(&image, dir.path());
    let restored = &cycle.restored;
    cycle.only().assert_mapped("XFS");
    let free = of_groups(&image, "freeblks");
    assert_eq!(
        cycle.only().free(),
        free * of_superblock(&image, "blocksize")
    );
    assert_sound(restored);
    for (name, content) in files {
        let stored = content_by_db(restored, &name);
        assert_eq!(stored.get(..content.len()), Some(&content[..]), "{name}");
    }
}

/// The blocks of a file, as `xfs_db` finds them.
fn content_by_db(image: &Path, name: &str) -> Vec<u8> {
    let block = of_superblock(image, "blocksize");
    let group_blocks = of_superblock(image, "agblocks");
    let mut content = Vec::new();
    // "data offset 0 startblock 14 (0/14) count 25 flag 0"
    for line in db(image, &[&format!("path /{name}"), "bmap"]).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words[5].trim_matches(['(', ')']).split_once('/').unwrap();
        let place = (
            place.0.parse::<u64>().unwrap(),
            place.1.parse::<u64>().unwrap(),
        );
        let count: u64 = words[7].parse().unwrap();
        let at = (place.0 * group_blocks + place.1) * block;
        content.extend(bytes::read(image, at, count * block));
    }
    content
}

#[test]
fn version_4_is_read_too() {
    version_4(&["-l", "size=10m"], 80 * MIB);
    let oldest = "-b size=512 -l size=10m,version=1,lazy-count=0";
    version_4(&oldest.split(' ').collect::<Vec<_>>(), 80 * MIB);
    if long() {
        for options in [
            "-b size=64k -l size=40m",
            "-s size=4096 -l size=20m,su=256k -d agcount=3",
            "-l size=10m,lazy-count=0 -i attr=1,projid32bit=0",
        ] {
            version_4(&options.split(' ').collect::<Vec<_>>(), 300 * MIB);
        }
    }
}

/// The plan of a backup.
fn plan(image: &Path, dir: &Path) -> serde_json::Value {
    let store = dir.join("plans");
    let store = if store.is_dir() {
        Store::at(&store)
    } else {
        Store::new(dir, "plans")
    };
    let run = store.backup(image).arg("--dry-run").arg("--json").run();
    run.expect(0).json()["plan"]["partitions"][0].clone()
}

/// A copy of a volume's file while it may be mounted.
fn copied(image: &Path, name: &str) -> PathBuf {
    let copy = image.with_file_name(name);
    let (from, to) = (image.to_str().unwrap(), copy.to_str().unwrap());
    tools::run("cp", &["--sparse=always", from, to]);
    copy
}

/// Writes files to `root`, each with fsync; their names and content.
fn fsynced(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut stream = Stream::new(60);
    let write = |n: u64| {
        let name = format!("fsynced-{n}");
        let len = 1 + stream.below(200_000);
        let content = stream.bytes(len);
        let path = root.join(&name);
        fs::write(&path, &content).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        (name, content)
    };
    (0..60).map(write).collect()
}

#[test]
fn what_a_crash_leaves_is_taken_whole() {
    if !privileged_with_fs("xfs", "XFS with changes in its log") {
        return;
    }
    let dir = scratch();
    let (image, mount) = (dir.path().join("disk"), dir.path().join("m"));
    mkfs(&image, 96 * MIB, &["-l", "size=10m"]);
    let (crashed, frozen, files) = mounted(&image, &mount, |root| {
        aged::age(root, 6 * MIB, 8, POSIX);
        let files = fsynced(root);
        let crashed = copied(&image, "crashed");
        tools::run("fsfreeze", &["-f", root.to_str().unwrap()]);
        let frozen = copied(&image, "frozen");
        tools::run("fsfreeze", &["-u", root.to_str().unwrap()]);
        (crashed, frozen, files)
    });
    for copy in [crashed, frozen] {
        let cycle = Cycle::of(&copy, dir.path());
        cycle.only().assert_whole("XFS", "its log holds changes");
        mounted(&cycle.restored, &mount, |root| {
            for (name, content) in &files {
                let found = fs::read(root.join(name)).unwrap();
                assert!(found == *content, "{name} of {}", copy.display());
            }
        });
        assert_sound(&cycle.restored);
        plan_is(&cycle.restored, dir.path(), true);
        fs::remove_file(&cycle.restored).unwrap();
    }
}

/// Fails unless the map is certain or not, and `xfs_logprint` agrees that the log is clean or not.
#[track_caller]
fn plan_is(image: &Path, dir: &Path, clean: bool) {
    let printed = tools::run("xfs_logprint", &["-t", image.to_str().unwrap()]);
    let state = if clean {
        "state: <CLEAN>"
    } else {
        "state: <DIRTY>"
    };
    assert!(printed.contains(state), "{printed}");
    let plan = plan(image, dir);
    if clean {
        Part(&plan).assert_mapped("XFS");
        let free = of_groups(image, "freeblks");
        assert_eq!(Part(&plan).free(), free * of_superblock(image, "blocksize"));
    } else {
        Part(&plan).assert_whole("XFS", "its log holds changes");
    }
}

/// Takes a small log through every state, around its ring several times.
fn log_states(options: &[&str], len: u64) {
    let dir = scratch();
    let (image, mount) = (dir.path().join("disk"), dir.path().join("m"));
    let dir = dir.path();
    mkfs(&image, len, options);
    plan_is(&image, dir, true);
    mounted(&image, &mount, |_| {});
    plan_is(&image, dir, true);
    for turn in 0..4 {
        mounted(&image, &mount, |root| {
            // Every fsync writes at least a log stripe.
            for n in 0..130 {
                let path = root.join(format!("f{turn}-{n}"));
                fs::write(&path, "x").unwrap();
                File::open(&path).unwrap().sync_all().unwrap();
            }
            plan_is(&copied(&image, "dirty"), dir, false);
            tools::run("fsfreeze", &["-f", root.to_str().unwrap()]);
            let copy = copied(&image, "dirty");
            tools::run("fsfreeze", &["-u", root.to_str().unwrap()]);
            plan_is(&copy, dir, false);
        });
        plan_is(&image, dir, true);
    }
    // The log sequence number of the last change of the superblock: its upper half is the cycle.
    assert!(of_superblock(&image, "lsn") >> 32 >= 3);
    // A log that was thrown away and made anew, over a crashed volume and over a clean one.
    for broken in [dir.join("dirty"), image.clone()] {
        let _ = tools::try_run("xfs_repair", &["-L", broken.to_str().unwrap()]);
        plan_is(&broken, dir, true);
    }
    // In use, but nothing is written yet but empty records over the start of the ring.
    let copy = mounted(&image, &mount, |_| copied(&image, "dirty"));
    plan_is(&copy, dir, true);
    mounted(&image, &mount, |root| {
        tools::run("mount", &["-o", "remount,ro", root.to_str().unwrap()]);
        plan_is(&copied(&image, "dirty"), dir, true);
    });
    plan_is(&image, dir, true);
    mounted(&image, &mount, |root| {
        fs::write(root.join("last"), "x").unwrap();
    });
    plan_is(&image, dir, true);
    assert_sound(&image);
}

#[test]
fn logs_are_judged_as_xfs_logprint_does() {
    if !privileged_with_fs("xfs", "logs of XFS in every state") {
        return;
    }
    log_states(&["-l", "size=6528k,su=32k"], 64 * MIB);
}

#[test]
fn other_logs_are_judged_as_xfs_logprint_does() {
    if !long() || !privileged_with_fs("xfs", "other logs of XFS in every state") {
        return;
    }
    log_states(&["-l", "size=20m,su=256k"], 160 * MIB);
    log_states(&["-l", "size=10m,sunit=128", "-s", "size=4096"], 96 * MIB);
    log_states(&["-l", "size=8m,su=32k", "-b", "size=1024"], 96 * MIB);
}

#[test]
fn what_cannot_be_judged_is_taken_whole() {
    let dir = scratch();
    let dir = dir.path();
    let image = dir.join("disk");
    let log = dir.join("log");
    bytes::create_sparse(&log, 64 * MIB);
    let device = format!("logdev={},size=10m", log.display());
    mkfs(&image, 64 * MIB, &["-l", &device]);
    Part(&plan(&image, dir)).assert_whole("XFS", "its log is on another device");

    let (image, fresh) = (dir.join("internal"), dir.join("fresh"));
    mkfs(&fresh, 64 * MIB, &["-l", "size=10m"]);
    let known = u32::try_from(of_superblock(&fresh, "features_incompat")).unwrap();
    let incompatible = |bits: u32| (0xD8, (known | bits).to_be_bytes().to_vec());
    for ((at, value), why) in [
        (incompatible(0x10), "need of repair"),
        (incompatible(0x200), "zoned"),
        (incompatible(0x8000_0000), "not known: 0x80000000"),
        ((0xD4, vec![1, 0, 0, 5]), "not known: 0x1000000"),
        ((0xDC, vec![0, 0, 0, 2]), "not known: 0x2"),
        ((0x7E, vec![1]), "before it was finished"),
        ((0x90, vec![0, 0, 0, 0, 0, 0, 0, 9]), "counts 9 free blocks"),
        ((0x08, vec![0, 0, 0, 1]), "groups of"),
        ((0x65, vec![0xA3]), "version 3"),
    ] {
        fs::copy(&fresh, &image).unwrap();
        edit(&image, at, &value);
        Part(&plan(&image, dir)).assert_whole("XFS", why);
    }
    // What changes nothing about free space: exchange of ranges, parent pointers, metadata files.
    fs::copy(&fresh, &image).unwrap();
    let (at, value) = incompatible(0x1C0);
    edit(&image, at, &value);
    Part(&plan(&image, dir)).assert_mapped("XFS");
    // A file system that is longer than what holds it.
    let short = File::options().write(true).open(&image).unwrap();
    short.set_len(63 * MIB).unwrap();
    Part(&plan(&image, dir)).assert_whole("XFS", "bytes long");
}

#[test]
fn a_realtime_device_is_another_device() {
    let dir = scratch();
    let (image, realtime) = (dir.path().join("disk"), dir.path().join("realtime"));
    bytes::create_sparse(&realtime, 64 * MIB);
    let device = format!("rtdev={}", realtime.display());
    mkfs(&image, 64 * MIB, &["-l", "size=10m", "-r", &device]);
    assert!(of_superblock(&image, "rblocks") > 0);
    assert_free(Part(&plan(&image, dir.path())), &image);
}

#[test]
fn copies_with_new_uuids() {
    if !privileged_with_fs("xfs", "XFS with a UUID that is not the first one") {
        return;
    }
    let dir = scratch();
    let (image, mount) = (dir.path().join("disk"), dir.path().join("m"));
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    mkfs(&image, 64 * MIB, &["-l", "size=10m"]);
    mounted(&image, &mount, |root| aged::age(root, 2 * MIB, 9, POSIX));
    tools::run("xfs_admin", &["-U", "generate", &name(&image)]);
    assert_free(Part(&plan(&image, dir.path())), &image);
    // Structures keep the first UUID, the log has the new one, and again after it is used.
    mounted(&image, &mount, |root| {
        fs::write(root.join("more"), "x").unwrap();
    });
    let copy = dir.path().join("copy");
    tools::run("xfs_copy", &[name(&image), name(&copy)]);
    assert_free(Part(&plan(&copy, dir.path())), &copy);
    check_cycle(&image, dir.path());
}

#[test]
fn huge_and_sparse() {
    let dir = scratch();
    let image = dir.path().join("disk");
    mkfs(&image, 15 * TIB, &["-l", "size=64m"]);
    assert_free(Part(&plan(&image, dir.path())), &image);
}
