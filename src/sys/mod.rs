//! The kernel's calls, behind safe functions that return `std::io` errors.
//!
//! The only room with `unsafe` and libc. Holds no policy: what may be opened, locked or overwritten
//! is decided by the callers.

mod cache;
mod claim;
mod device_ids;
mod direct;
pub mod errno;
mod folder;
mod ioctl;
mod lock;
mod machine;
mod mapped;
mod open;
mod pending;
mod persist;
mod process;
mod space;
mod sparse;
mod terminal;

pub use cache::{
    begin_reading, do_not_read_ahead, drop_cached, is_cached, read_uncached, start_write_back,
};
pub use claim::{is_claimed, open_for_direct_reads, open_for_direct_writes, reopen_direct};
pub use device_ids::{LoopBacking, disk_sequence, loop_backing, mount_id, split_device_number};
pub use direct::{is_aligned, read_direct};
pub use folder::{FileFacts, Folder};
pub use ioctl::{
    block_device_len, discard, flush_buffers, logical_sector, physical_sector, reread_partitions,
    zero_out,
};
pub use lock::{Lock, cannot_lock, lock_exclusive, lock_shared};
pub use machine::{Machine, machine, may_be_shared};
pub use mapped::look_at_cached;
pub use open::{Access, open_direct, open_disk, open_no_follow};
pub use pending::{Pending, PendingCall, pending, pending_calls};
pub use persist::{facts_of, persist, read_full, sync, write_all_at};
pub use process::{
    allow_many_files, available_memory, effective_uid, hostname, is_readable, is_terminal_device,
    keep_memory_private, kernel_release, most_open_files, peak_memory, prefer_huge_pages,
    share_arenas, stand_back, survive_file_size_limit, sync_all,
};
pub use space::{Space, free_space, longest_file};
pub use sparse::{Segment, punch_hole, segment_at};
pub use terminal::ask_hidden;
