//! Two machines on one share whose file locks do not reach from one to the other: two mounts of one folder, and
//! a command that sees another machine's name and kernel.

use crate::kit::bytes;
use crate::kit::recorded::RecordedFolder;
use crate::kit::run::{Outcome, Running, Strata};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch};
use crate::processes::{at_work, large};
use std::path::{Path, PathBuf};

/// Starts a command as another machine would: with another host name and another run of the kernel.
struct Far {
    boot: PathBuf,
}

const FAR: &str =
    "hostname far && mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";

impl Far {
    fn new(dir: &Path) -> Far {
        let boot = dir.join("boot");
        std::fs::write(&boot, "11111111-2222-3333-4444-555555555555\n").unwrap();
        Far { boot }
    }

    fn start(&self, run: &Strata) -> Running {
        let boot = self.boot.to_str().unwrap();
        run.start_below(&["unshare", "--mount", "--uts", "sh", "-c", FAR, boot])
    }

    fn run(&self, run: &Strata) -> Outcome {
        self.start(run).wait()
    }
}

#[test]
fn a_run_on_another_machine_is_seen_though_its_locks_are_not() {
    let Some(share) = RecordedFolder::mount("two machines on a share") else {
        return;
    };
    let there = share.mount_again();
    let dir = scratch();
    let (far, large) = (Far::new(dir.path()), large(dir.path()));
    let small = dir.path().join("small.img");
    bytes::create_filled(&small, MIB);
    let (near, away) = (Store::at(share.path()), Store::at(there.path()));
    near.backed_up(&small);
    far.run(&away.backup(&small).args(["--set", "far"]))
        .expect(0);

    let mut at_it = far.start(&away.backup(&large).args(["--set", "large"]));
    at_work(share.path(), &mut at_it);
    at_it.signal("STOP");
    let who = format!("far, process {}, backup", at_it.id());
    let refused = || {
        let alone = near.verb("prune").args(["--keep-last", "1"]);
        let said = alone
            .run()
            .expect(9)
            .expect_says(&who)
            .expect_says("another machine");
        near.backup(&small).run().expect(9).expect_says(&who);
        said
    };
    refused();
    // What the locks admit goes on.
    near.verb("show").arg("latest").run().expect(0);
    near.verb("list").run().expect(0);
    assert!(
        share.has(".unfinished-"),
        "the upload of the other machine was taken away"
    );
    at_it.signal("CONT");
    at_it.wait().expect(0);
    near.verify(&["--deep"]).expect(0);
    near.backed_up(&small);

    // A dead one cannot be told from one that lives, and the way out is said.
    let mut dies = far.start(&away.backup(&large).args(["--set", "large", "--full"]));
    at_work(share.path(), &mut dies);
    let who = format!("far, process {}, backup", dies.id());
    dies.signal("KILL");
    assert_eq!(dies.wait().killed_by(), Some(9));
    let said = near.backup(&small).run().expect(9).expect_says(&who);
    let path = near.dir.join(".holder-0-run");
    let said = said.expect_says(&format!("remove {}", path.display()));
    assert!(path.exists(), "{said}");
    // On its own machine it is known to be dead.
    far.run(&away.backup(&small).args(["--set", "far"]))
        .expect(0);
    near.backed_up(&small);
    near.verify(&["--deep"]).expect(0);
    // What it had begun of another disk's image waits for that one.
    assert!(share.has(".unfinished-"));
    far.run(&away.backup(&large).args(["--set", "large", "--full"]))
        .expect(0);
    near.assert_no_clutter();
}

#[test]
fn what_a_person_removes_is_gone() {
    let Some(share) = RecordedFolder::mount("a holder that is dead") else {
        return;
    };
    let store = Store::at(share.path());
    let dir = scratch();
    let small = dir.path().join("small.img");
    bytes::create_filled(&small, MIB);
    store.backed_up(&small);
    let left = "far, process 7, prune\nstrata-lock alone machine=0 boot=0\n";
    share.put(".holder-0-run", left.into());
    store
        .verb("show")
        .arg("latest")
        .run()
        .expect(9)
        .expect_says("far, process 7, prune");
    std::fs::remove_file(store.dir.join(".holder-0-run")).unwrap();
    store.verb("show").arg("latest").run().expect(0);
    store.backed_up(&small);
}
