//! What a store that wraps another does not change.

/// Methods of [`Store`](crate::store::Store) that ask the store in a field for the same: `pass_on!(inner: list,
/// remove);`.
#[doc(hidden)]
#[macro_export]
macro_rules! pass_on {
    ($inner:tt: $($method:ident),+ $(,)?) => {
        $($crate::pass_on!(@ $inner $method);)+
    };
    (@ $inner:tt name) => {
        fn name(&self) -> &str {
            self.$inner.name()
        }
    };
    (@ $inner:tt list) => {
        fn list(&self) -> $crate::base::Result<Vec<$crate::store::Entry>> {
            self.$inner.list()
        }
    };
    (@ $inner:tt open) => {
        fn open(
            &self,
            name: &$crate::store::FileName,
        ) -> $crate::base::Result<std::sync::Arc<dyn $crate::base::RangeRead>> {
            self.$inner.open(name)
        }
    };
    (@ $inner:tt create) => {
        fn create(
            &self,
            name: &$crate::store::FileName,
        ) -> $crate::base::Result<Box<dyn $crate::store::Upload>> {
            self.$inner.create(name)
        }
    };
    (@ $inner:tt create_in_parts) => {
        fn create_in_parts(
            &self,
            name: &$crate::store::FileName,
            part_len: Option<u64>,
        ) -> $crate::base::Result<Box<dyn $crate::store::Upload>> {
            self.$inner.create_in_parts(name, part_len)
        }
    };
    (@ $inner:tt create_as) => {
        fn create_as(
            &self,
            name: &$crate::store::FileName,
            form: &$crate::store::Form,
        ) -> $crate::base::Result<Box<dyn $crate::store::Upload>> {
            self.$inner.create_as(name, form)
        }
    };
    (@ $inner:tt part_len) => {
        fn part_len(&self, name: &$crate::store::FileName) -> $crate::base::Result<Option<u64>> {
            self.$inner.part_len(name)
        }
    };
    (@ $inner:tt part_count) => {
        fn part_count(&self, name: &$crate::store::FileName) -> $crate::base::Result<Option<u32>> {
            self.$inner.part_count(name)
        }
    };
    (@ $inner:tt form_of) => {
        fn form_of(
            &self,
            name: &$crate::store::FileName,
        ) -> $crate::base::Result<$crate::store::Form> {
            self.$inner.form_of(name)
        }
    };
    (@ $inner:tt print_of) => {
        fn print_of(
            &self,
            name: &$crate::store::FileName,
        ) -> $crate::base::Result<$crate::base::Digest> {
            self.$inner.print_of(name)
        }
    };
    (@ $inner:tt overwrite) => {
        fn overwrite(
            &self,
            name: &$crate::store::FileName,
            offset: u64,
            bytes: &[u8],
        ) -> $crate::base::Result<()> {
            self.$inner.overwrite(name, offset, bytes)
        }
    };
    (@ $inner:tt file_of) => {
        fn file_of(&self, name: &$crate::store::FileName) -> $crate::store::FileName {
            self.$inner.file_of(name)
        }
    };
    (@ $inner:tt remove) => {
        fn remove(&self, name: &$crate::store::FileName) -> $crate::base::Result<()> {
            self.$inner.remove(name)
        }
    };
    (@ $inner:tt space) => {
        fn space(&self) -> $crate::base::Result<Option<$crate::store::Space>> {
            self.$inner.space()
        }
    };
    (@ $inner:tt lock) => {
        fn lock(
            &self,
            mode: $crate::store::LockMode,
            holder: &str,
        ) -> $crate::base::Result<$crate::store::StoreLock> {
            self.$inner.lock(mode, holder)
        }
    };
    (@ $inner:tt clean_up) => {
        fn clean_up(&self) -> $crate::base::Result<Vec<String>> {
            self.$inner.clean_up()
        }
    };
    (@ $inner:tt leftovers) => {
        fn leftovers(&self) -> $crate::base::Result<Vec<Box<dyn $crate::store::Leftover>>> {
            self.$inner.leftovers()
        }
    };
    (@ $inner:tt will_reread) => {
        fn will_reread(&self, most: u64) {
            self.$inner.will_reread(most);
        }
    };
    (@ $inner:tt caveats) => {
        fn caveats(&self) -> Vec<String> {
            self.$inner.caveats()
        }
    };
    (@ $inner:tt paths_of) => {
        fn paths_of(&self, names: &[&$crate::store::FileName]) -> Vec<std::path::PathBuf> {
            self.$inner.paths_of(names)
        }
    };
}
