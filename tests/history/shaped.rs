//! A store whose new images take a form of its own choice: in parts, or encrypted.

use crate::keys::{Pocket, RANDOM};
use age::secrecy::ExposeSecret;
use diskstrata::base::Result;
use diskstrata::crypt::{Identity, KeyEntry, KeyKind, KeyRing, KeySet};
use diskstrata::store::{EncryptedStore, FileName, Form, MIN_PART_LEN, SplitStore, Store, Upload};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) struct Shaped {
    pub(crate) inner: Arc<dyn Store>,
    /// How the next image is to lie.
    pub(crate) form: Box<dyn Fn() -> Result<Form> + Send + Sync>,
}

impl Store for Shaped {
    diskstrata::pass_on!(inner: name, list, open, create_as, form_of, print_of, overwrite, remove, space, lock, clean_up);

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        match name.as_str().ends_with(".strata") {
            true => self.inner.create_as(name, &(self.form)()?),
            false => self.inner.create(name),
        }
    }
}

/// A store below which all images lie in parts of the least length.
pub(crate) fn in_parts(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Shaped {
        inner: Arc::new(SplitStore::new(inner, Uuid::new_v4)),
        form: Box::new(|| {
            Ok(Form {
                part_len: Some(MIN_PART_LEN),
                keys: None,
            })
        }),
    })
}

/// A store whose images are all encrypted, for a key that it has at hand.
pub(crate) fn encrypted(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Shape::encrypted().over(inner)
}

/// How the images of a store lie.
#[derive(Clone)]
pub(crate) enum Shape {
    Plain,
    InParts,
    /// For a key that is at hand.
    Encrypted(Arc<KeySet>, Arc<KeyRing>),
}

impl Shape {
    /// One of each.
    pub(crate) fn all() -> [Shape; 3] {
        [Shape::Plain, Shape::InParts, Shape::encrypted()]
    }

    /// With a key of its own.
    pub(crate) fn encrypted() -> Shape {
        let (private, public) = Identity::generate();
        let key = KeyEntry::new("mine", KeyKind::Age, &public).unwrap();
        let keys = KeySet::new(vec![key], RANDOM).unwrap();
        let pocket = Pocket(vec![private.expose_secret().to_owned()]);
        Shape::Encrypted(Arc::new(keys), Arc::new(KeyRing::new(pocket)))
    }

    /// A store below which all images lie so.
    pub(crate) fn over(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Shape::Plain => inner,
            Shape::InParts => in_parts(inner),
            Shape::Encrypted(keys, ring) => {
                let (keys, ring) = (Arc::clone(keys), Arc::clone(ring));
                Arc::new(Shaped {
                    inner: Arc::new(EncryptedStore::new(inner, ring, RANDOM)),
                    form: Box::new(move || {
                        Ok(Form {
                            part_len: None,
                            keys: Some(Arc::clone(&keys)),
                        })
                    }),
                })
            }
        }
    }
}
