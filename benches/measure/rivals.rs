//! Other programs that image a disk, as a person who knows them would run them.

use super::{Any, Cost, measured, text};
use std::path::Path;
use std::process::Command;

/// Another program: bash scripts, which get the disk as `$1`, a folder that is empty at first as `$2`, and the
/// disk's partitions behind that, as `ext4:START:LENGTH`. What restores writes `restored.img` beside that folder.
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    needs: &'static [&'static str],
    /// The file systems that it takes, of which it needs one; none where it takes whatever is on a disk.
    takes: &'static [&'static str],
    /// What is done once in an empty folder.
    pub(crate) prepare: &'static str,
    pub(crate) backup: &'static str,
    pub(crate) restore: Option<&'static str>,
    /// Whether another backup into the same folder takes what is new only.
    pub(crate) increments: bool,
}

/// A disk for them, and where they work.
pub(crate) struct Ground<'a> {
    pub(crate) work: &'a Path,
    pub(crate) disk: &'a Path,
    pub(crate) folder: &'a Path,
    /// Partitions with a file system: what it is called, where they begin and how long they are.
    pub(crate) partitions: &'a [(String, u64, u64)],
}

impl Ground<'_> {
    /// Runs a script of a rival, which must succeed, with passwords and caches of its own.
    pub(crate) fn run(&self, script: &str) -> Any<Cost> {
        let home = self.work.join("home").display().to_string();
        let homes = ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "BORG_BASE_DIR", "HOME"];
        let mut line = vec!["env".to_owned()];
        line.extend(homes.map(|name| format!("{name}={home}")));
        line.extend(["RESTIC_PASSWORD=bench", "RUSTIC_PASSWORD=bench"].map(str::to_owned));
        let script = format!("set -euo pipefail\nmkdir -p \"$HOME\"\n{script}");
        line.extend(["bash", "-c", &script, "bash"].map(str::to_owned));
        line.extend([text(self.disk)?.to_owned(), text(self.folder)?.to_owned()]);
        let partitions = self.partitions.iter();
        line.extend(partitions.map(|(name, start, len)| format!("{name}:{start}:{len}")));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        Ok(measured(&line)?.0)
    }
}

/// Those whose programs are installed and that take something of these partitions; where `STRATA_BENCH_RIVALS` names
/// some, as `dd,qemu-img`, none but those.
pub(crate) fn rivals(partitions: &[(String, u64, u64)]) -> Vec<Rival> {
    let named = std::env::var("STRATA_BENCH_RIVALS").ok();
    let mut rivals = all();
    if let Some(named) = named {
        let named: Vec<&str> = named.split(',').collect();
        rivals.retain(|rival| named.iter().any(|name| rival.name.starts_with(name)));
    }
    rivals.retain(|rival| {
        let mut there = partitions.iter().map(|(name, ..)| name.as_str());
        let takes = rival.takes.is_empty() || there.any(|name| rival.takes.contains(&name));
        takes && rival.needs.iter().all(|program| installed(program))
    });
    rivals
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output();
    found.is_ok_and(|o| o.status.success())
}

fn all() -> Vec<Rival> {
    let once = |name, needs, backup, restore| Rival {
        name,
        needs,
        takes: &[],
        prepare: "true",
        backup,
        restore,
        increments: false,
    };
    let store = |name, needs, prepare, backup, restore| Rival {
        prepare,
        increments: true,
        ..once(name, needs, backup, Some(restore))
    };
    vec![
        once(
            "partclone of each partition, zstd -T0 -3",
            &["partclone.ext4", "partclone.restore", "zstd", "losetup"],
            r#"disk=$1 out=$2 loop=; shift 2
            trap '[ -z "$loop" ] || losetup -d "$loop"' EXIT
            for part; do
                IFS=: read -r fs start len <<<"$part"
                program=partclone.$fs
                command -v "$program" >/dev/null || program=partclone.dd
                mode=-c; [ "$program" = partclone.dd ] && mode=
                loop=$(losetup --find --show --read-only -o "$start" --sizelimit "$len" "$disk")
                "$program" $mode -q -L /dev/null -s "$loop" -o - | zstd -q -T0 -3 -f -o "$out/$start"
                losetup -d "$loop"
                loop=
            done"#,
            Some(
                r#"disk=$1 out=$2 loop=; shift 2
                trap '[ -z "$loop" ] || losetup -d "$loop"' EXIT
                truncate -s "$(stat -c %s "$disk")" "$out/../restored.img"
                for part; do
                    IFS=: read -r fs start len <<<"$part"
                    loop=$(losetup --find --show -o "$start" --sizelimit "$len" "$out/../restored.img")
                    if command -v "partclone.$fs" >/dev/null; then
                        zstd -q -dc "$out/$start" | partclone.restore -q -L /dev/null -s - -o "$loop"
                    else
                        zstd -q -dc "$out/$start" | dd of="$loop" bs=1M iflag=fullblock status=none
                    fi
                    losetup -d "$loop"
                    loop=
                done"#,
            ),
        ),
        once(
            "dd, zstd -T0 -3",
            &["dd", "zstd"],
            r#"dd if="$1" bs=4M status=none | zstd -q -T0 -3 -f -o "$2/disk""#,
            Some(r#"zstd -q -d -T0 --sparse -f -o "$2/../restored.img" "$2/disk""#),
        ),
        once(
            "qemu-img convert -c, zstd",
            &["qemu-img"],
            r#"qemu-img convert -c -O qcow2 -o compression_type=zstd -W -m 16 -f raw "$1" "$2/disk""#,
            Some(r#"qemu-img convert -O raw -W -m 16 "$2/disk" "$2/../restored.img""#),
        ),
        Rival {
            takes: &["ext4", "xfs", "btrfs"],
            ..once(
                "fsarchiver, zstd 3, files of ext4, XFS and Btrfs alone",
                &["fsarchiver", "losetup"],
                r#"disk=$1 out=$2 loops=(); shift 2
            trap 'for loop in "${loops[@]}"; do losetup -d "$loop"; done' EXIT
            for part; do
                IFS=: read -r fs start len <<<"$part"
                case $fs in ext4|xfs|btrfs) ;; *) continue ;; esac
                loops+=("$(losetup --find --show -o "$start" --sizelimit "$len" --read-only "$disk")")
            done
            fsarchiver savefs -o -a -A -Z 3 -j "$(nproc)" "$out/disk.fsa" "${loops[@]}" >/dev/null"#,
                None,
            )
        },
        store(
            "restic, format 2",
            &["restic"],
            r#"restic init -q --repository-version 2 -r "$2""#,
            r#"restic backup -q -r "$2" "$1""#,
            r#"restic restore -q latest -r "$2" --target "$2/../restored"
            mv "$2/../restored$1" "$2/../restored.img"
            rm -r "$2/../restored""#,
        ),
        store(
            "borg, zstd 3",
            &["borg"],
            r#"borg init -e none "$2""#,
            r#"borg create -C zstd,3 "$2::{now}" "$1""#,
            r#"newest=$(borg list --short --last 1 "$2")
            borg extract --sparse --stdout "$2::$newest" | cp --sparse=always /dev/stdin "$2/../restored.img""#,
        ),
        store(
            "rustic",
            &["rustic"],
            r#"rustic -r "$2" init"#,
            r#"rustic -r "$2" backup "$1""#,
            r#"rustic -r "$2" restore "latest:$1" "$2/../restored"
            mv "$2/../restored" "$2/../restored.img""#,
        ),
        store(
            "bupstash, zstd 3",
            &["bupstash"],
            r#"bupstash new-key -o "$HOME/key"
            bupstash init -r "$2/store""#,
            r#"bupstash put -q -k "$HOME/key" -r "$2/store" --compression zstd:3 name=disk "$1" >/dev/null"#,
            r#"bupstash get -q -k "$HOME/key" -r "$2/store" name=disk >"$2/../restored.img""#,
        ),
    ]
}
