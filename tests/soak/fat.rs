//! A set in parts of 64 MiB on a FAT32 that a kernel has mounted, in a virtual machine: thirty increments,
//! with prunes and merges between them, all verified, the newest and the oldest restored.

use crate::kit::MIB;
use crate::kit::bytes::{self, assert_same};
use crate::kit::run::STRATA;
use crate::kit::scratch;
use crate::kit::tools;
use crate::kit::vm::{Vm, virtual_machine};
use std::path::{Path, PathBuf};

/// Length of the disk that is imaged.
const DISK: u64 = 300 * MIB;
/// Images, the full one counted.
const IMAGES: usize = 31;

/// What the machine does. `step NAME COMMAND…` tells how a command ended, and ends the script when it
/// failed.
const SCRIPT: &str = r#"
step() {
    name=$1; shift
    "$@" >/tmp/said 2>&1; code=$?
    echo "step $name $code"
    [ $code = 0 ] && return
    cat /tmp/said
    exit 1
}
said() {
    grep -q "$1" /tmp/said && return
    echo "nothing about $1:"; cat /tmp/said
    exit 1
}
change() { dd if=/dev/urandom of=/dev/vdb bs=1M seek="$1" count="$2" conv=notrunc,fsync; }
backup() { strata backup /dev/vdb --set disk --no-progress --store "$@" $BACKUP; }
store() { verb=$1; shift; strata "$verb" --no-progress --store /mnt/fat/store "$@"; }
fits() { for file in /mnt/fat/store/*; do [ "$(stat -c %s "$file")" -le 67108864 ] || return 1; done; }

mkdir /mnt/fat /mnt/exfat
step mount mount -t vfat /dev/vda /mnt/fat
step mount-exfat mount -t exfat /dev/vdf /mnt/exfat
step plan-fat backup /mnt/fat/store --split auto --dry-run --json
said '"part_bytes": 4293918720'
step plan-exfat backup /mnt/exfat/store --split auto --dry-run --json
said '"part_bytes": null'
step full backup /mnt/fat/store --full --split 64M
number=1
while [ $number -le 30 ]; do
    # Most increments are short; every tenth has several parts.
    case $number in
    *5) step change-$number change $((number * 6)) 90 ;;
    *) step change-$number change $((number * 7)) 3 ;;
    esac
    step increment-$number backup /mnt/fat/store --incremental
    case $number in
    10) step prune-10 store prune --keep-last 6 ;;
    17) step merge-17 store merge disk@-3..disk@-1 ;;
    20) step prune-20 store prune --keep-last 5 ;;
    26) step merge-26 store merge ..disk@-4 ;;
    27) step keep dd if=/dev/vdb of=/dev/vdc bs=1M conv=fsync ;;
    esac
    number=$((number + 1))
done
step prune-30 store prune --keep-last 4
step list store list
said PARTS
[ "$(grep -c increm /tmp/said)" = 3 ] || { cat /tmp/said; exit 1; }
step fits fits
step remount umount /mnt/fat
step again mount -t vfat /dev/vda /mnt/fat
step verify store verify --deep
step newest store restore disk@latest /dev/vdd --yes
step oldest store restore disk@-3 /dev/vde --yes
echo 3 >/proc/sys/vm/drop_caches
step same-newest cmp /dev/vdb /dev/vdd
step same-oldest cmp /dev/vdc /dev/vde
step unmount umount /mnt/fat
"#;

/// An empty file as long as the disk.
fn empty(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    bytes::create_sparse(&path, DISK);
    path
}

#[test]
#[ignore = "8 minutes in a virtual machine: `./test --long`"]
fn thirty_increments_in_parts_on_fat() {
    if !virtual_machine("thirty increments in parts on FAT") {
        return;
    }
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let (fat, exfat) = (path("fat.img"), path("exfat.img"));
    bytes::create_sparse(&fat, 2048 * MIB);
    tools::run("mkfs.fat", &["-F", "32", fat.to_str().unwrap()]);
    bytes::create_sparse(&exfat, 64 * MIB);
    tools::run("mkfs.exfat", &[&exfat]);
    let source = empty(dir.path(), "source.img");
    bytes::write_random(&source, 0, DISK, 31);
    let kept = empty(dir.path(), "kept.img");
    let (newest, oldest) = (path("newest.img"), path("oldest.img"));
    for target in [&newest, &oldest] {
        bytes::create_filled(target, DISK);
    }
    let program = path("strata");
    tools::run("strip", &["-o", program.to_str().unwrap(), STRATA]);
    let modules = ["nls_cp437", "nls_ascii", "nls_utf8", "vfat", "exfat"];
    let mut vm = modules.iter().fold(Vm::new(), |vm, name| vm.module(name));
    for disk in [&fat, &source, &kept, &newest, &oldest, &exfat] {
        vm = vm.disk(disk);
    }
    let vm = vm.program_with_libraries(&program).long(1024, 1500);
    let given = |name: &str| std::env::var(name).unwrap_or_default();
    let (setup, backup) = (given("STRATA_FAT_SETUP"), given("STRATA_FAT_BACKUP"));
    let output = vm.run(&format!("{setup}\nBACKUP='{backup}'\n{SCRIPT}"));
    let output = output.expect(Some(0));
    let steps: Vec<&str> = output.lines().filter(|l| l.starts_with("step ")).collect();
    assert!(steps.iter().all(|step| step.ends_with(" 0")), "{output}");
    let of = |what: &str| steps.iter().filter(|step| step.contains(what)).count();
    assert_eq!(of("increment-") + of(" full "), IMAGES, "{output}");
    assert_eq!(
        (of("prune-"), of("merge-"), of("same-")),
        (3, 2, 2),
        "{output}"
    );
    tools::run("fsck.fat", &["-n", fat.to_str().unwrap()]);
    assert_same(&source, &newest);
    assert_same(&kept, &oldest);
    assert_ne!(bytes::fingerprint(&source), bytes::fingerprint(&kept));
}
