//! How images can be taken out of their histories without touching what others need. Pure.
//!
//! An image that nothing is left to build on simply goes. One that exactly one other is left to build
//! on is merged into that one, which is written anew with an older parent, or none. One that several
//! are left to build on stays: merged into each of them, its content would be stored several times.

use super::catalog::{Catalog, Image};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What has to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Images that simply go, those that nothing builds on first.
    pub remove: Vec<Uuid>,
    /// Images that take in others, oldest first.
    pub merges: Vec<Merge>,
    /// Images that should have gone and stay, with the number of images that build on them.
    pub bases: Vec<(Uuid, usize)>,
}

/// One image that is written anew, so that others can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The image.
    pub image: Uuid,
    /// Its parent afterwards; without one it becomes full.
    pub parent: Option<Uuid>,
    /// The images that it takes in and that go afterwards, youngest first.
    pub absorbs: Vec<Uuid>,
}

/// Plans to take the images `unwanted` out of `catalog`.
pub fn plan_removal(catalog: &Catalog, unwanted: &HashSet<Uuid>) -> Removal {
    let mut removal = Removal::default();
    let mut children: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for image in &catalog.images {
        if let Some(parent) = image.header.parent {
            children.entry(parent.id).or_default().push(image.header.id);
        }
    }
    // Which images are left that build on one directly, once the unwanted ones between are gone.
    let mut heirs: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    let mut goes: HashSet<Uuid> = HashSet::new();
    // Youngest first: what builds on an image is settled before the image is.
    for image in by_age(catalog).into_iter().rev() {
        let id = image.header.id;
        let mut left = Vec::new();
        for child in children.get(&id).into_iter().flatten() {
            if goes.contains(child) {
                left.extend(heirs.get(child).into_iter().flatten().copied());
            } else {
                left.push(*child);
            }
        }
        if unwanted.contains(&id) {
            match left.len() {
                0 => removal.remove.push(id),
                1 => {}
                many => removal.bases.push((id, many)),
            }
            if left.len() < 2 {
                goes.insert(id);
            }
        }
        heirs.insert(id, left);
    }
    removal.bases.reverse();
    removal.merges = merges(catalog, &goes);
    removal
}

/// Parents before children.
fn by_age(catalog: &Catalog) -> Vec<&Image> {
    let mut images: Vec<&Image> = catalog.images.iter().collect();
    images.sort_by_key(|i| (i.header.set, i.header.sequence));
    images
}

fn merges(catalog: &Catalog, goes: &HashSet<Uuid>) -> Vec<Merge> {
    let mut merges = Vec::new();
    for image in by_age(catalog) {
        let id = image.header.id;
        if goes.contains(&id) {
            continue;
        }
        let mut absorbs = Vec::new();
        let mut parent = image.header.parent.map(|p| p.id);
        while let Some(above) = parent.filter(|p| goes.contains(p)) {
            absorbs.push(above);
            let known = catalog.by_id(above);
            parent = known.and_then(|i| i.header.parent).map(|p| p.id);
        }
        if !absorbs.is_empty() {
            merges.push(Merge {
                image: id,
                parent,
                absorbs,
            });
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, point};
    use super::*;
    use proptest::prelude::*;

    /// A catalog from (number, parent's number or 0).
    fn catalog(images: &[(u32, u32)]) -> Catalog {
        let images = images.iter().map(|(n, parent)| point(*n, *parent));
        Catalog::of(images.collect(), Vec::new())
    }

    fn plan(images: &[(u32, u32)], unwanted: &[u32]) -> Removal {
        let unwanted = unwanted.iter().map(|n| id(*n)).collect();
        plan_removal(&catalog(images), &unwanted)
    }

    fn ids(numbers: &[u32]) -> Vec<Uuid> {
        numbers.iter().map(|n| id(*n)).collect()
    }

    #[test]
    fn the_full_image_rolls_forward() {
        let removal = plan(&[(1, 0), (2, 1), (3, 2), (4, 3)], &[1, 2]);
        let expected = Merge {
            image: id(3),
            parent: None,
            absorbs: ids(&[2, 1]),
        };
        assert_eq!(removal.merges, [expected]);
        assert!(removal.remove.is_empty() && removal.bases.is_empty());
    }

    #[test]
    fn the_middle_is_merged_and_the_end_just_goes() {
        let removal = plan(&[(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)], &[2, 4, 5]);
        assert_eq!(removal.remove, ids(&[5, 4]), "youngest first");
        let expected = Merge {
            image: id(3),
            parent: Some(id(1)),
            absorbs: ids(&[2]),
        };
        assert_eq!(removal.merges, [expected]);
    }

    #[test]
    fn a_base_of_several_stays_until_one_is_left() {
        let images = [(1, 0), (2, 1), (3, 1), (4, 1)];
        let removal = plan(&images, &[1, 2]);
        assert_eq!(removal.bases, [(id(1), 2)]);
        assert_eq!(removal.remove, ids(&[2]));
        assert!(removal.merges.is_empty());
        let removal = plan(&images, &[1, 2, 3]);
        assert!(removal.bases.is_empty());
        assert_eq!(removal.merges[0].image, id(4));
        assert_eq!(removal.merges[0].absorbs, ids(&[1]));
    }

    #[test]
    fn a_fork_behind_unwanted_images_is_a_fork() {
        let removal = plan(&[(1, 0), (2, 1), (3, 2), (4, 2)], &[1, 2]);
        assert_eq!(removal.bases, [(id(2), 2)]);
        let expected = Merge {
            image: id(2),
            parent: None,
            absorbs: ids(&[1]),
        };
        assert_eq!(removal.merges, [expected], "what stays takes in what goes");
    }

    proptest! {
        #[test]
        fn every_image_that_stays_has_a_parent_that_stays(
            parents in proptest::collection::vec(0u32..1000, 1..30),
            unwanted in proptest::collection::hash_set(1u32..31, 0..30),
        ) {
            let images: Vec<(u32, u32)> = parents
                .iter()
                .zip(1u32..)
                .map(|(p, n)| (n, p % n))
                .collect();
            let catalog = catalog(&images);
            let unwanted: HashSet<Uuid> = unwanted.into_iter().map(id).collect();
            let removal = plan_removal(&catalog, &unwanted);
            let absorbed = removal.merges.iter().flat_map(|m| m.absorbs.iter());
            let gone: HashSet<Uuid> = removal.remove.iter().chain(absorbed).copied().collect();
            prop_assert!(gone.is_subset(&unwanted));
            let bases: HashSet<Uuid> = removal.bases.iter().map(|(id, _)| *id).collect();
            prop_assert!(gone.is_disjoint(&bases));
            for image in &catalog.images {
                let own = image.header.id;
                if gone.contains(&own) {
                    continue;
                }
                prop_assert!(!unwanted.contains(&own) || bases.contains(&own));
                let merge = removal.merges.iter().find(|m| m.image == own);
                let parent = match merge {
                    Some(merge) => merge.parent,
                    None => image.header.parent.map(|p| p.id),
                };
                prop_assert!(parent.is_none_or(|p| !gone.contains(&p)));
            }
        }
    }
}
