//! The one place where stored checksums are believed.

/// Whether a stored checksum is the computed one. Under a fuzzer every checksum is right, so that
/// damage reaches the code behind it. Not for what decides whether bytes are handed out as a disk's
/// content: digests of blocks and tags of ciphertext are compared as they are.
pub fn checksum_matches<T: PartialEq + Copy>(computed: T, stored: T) -> bool {
    cfg!(fuzzing) || computed == stored
}
