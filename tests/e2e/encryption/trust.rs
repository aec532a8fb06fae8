//! What somebody who owns the store can put there, and that it is not taken for ours.

use super::History;
use crate::kit::bytes;
use crate::kit::store::Store;

/// An attacker who knows the public key of a victim makes an image of the same set for it.
#[test]
fn an_image_for_the_right_keys_from_the_wrong_hands_is_refused() {
    let history = History::new(92, 0, &[]);
    let recovery = history.key.clone();
    let public = &history.public();
    let evil = Store::new(history.dir.path(), "evil");
    let fake = history.path("fake.img");
    std::fs::copy(&history.disk, &fake).unwrap();
    bytes::write_random(&fake, 0, 1 << 20, 7);
    let forged = evil
        .backup(&fake)
        .args(["--set", "secret-name", "--recipient", public, "--json"])
        .env("STRATA_STATE", history.path("evil-state"))
        .run()
        .expect(0)
        .json();
    let forged = evil.file_of(&forged["image"]);
    let planted = history
        .store
        .dir
        .join("encrypted-00000000-00009-x-full.strata");
    std::fs::copy(&forged, &planted).unwrap();
    let verb = |verb: &str| history.store.verb(verb).arg("--identity").arg(&recovery);
    let target = history.path("target.img");
    let restore = |image: &str| {
        let restore = history.store.restore(image, &target);
        restore.arg("--identity").arg(&recovery)
    };
    restore("latest").run().expect(4);
    restore("secret-name@latest").run().expect(4);
    verb("prune").args(["--keep-last", "1"]).run().expect(4);
    verb("backup").arg(&history.disk).run().expect(4);
    verb("key").arg("rotate").run().expect(4);
    assert!(!target.exists(), "nothing was written");
    // Named by its own key set, the image is found, and the other one is not there.
    let own = history.images[0]["key_set"].as_str().unwrap();
    restore("latest").args(["--key-set", own]).run().expect(0);
    bytes::assert_same(&history.disk, &target);
    let listed = verb("list")
        .args(["--key-set", own, "--json"])
        .run()
        .expect(0)
        .json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    // An image that anybody could have written is refused then too.
    std::fs::remove_file(&planted).unwrap();
    let plain = evil
        .backup(&fake)
        .args(["--set", "plain", "--no-encrypt", "--json"]);
    let plain = evil.file_of(&plain.run().expect(0).json()["image"]);
    std::fs::copy(&plain, history.store.dir.join("plain.strata")).unwrap();
    std::fs::remove_file(&target).unwrap();
    restore("latest").run().expect(2);
    restore("latest").args(["--key-set", own]).run().expect(0);
    bytes::assert_same(&history.disk, &target);
    let pipe = std::fs::read(&plain).unwrap();
    let verify = crate::kit::run::strata("verify")
        .arg("-")
        .args(["--key-set", own]);
    verify.input(&pipe).run().expect(4);
}
