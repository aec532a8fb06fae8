//! What may be typed. The help texts, completions and manual pages all come from here.

use crate::ops::backup::DEFAULT_RETRIES;
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Image disks and partitions, and write them back so that the machine boots again.
#[derive(Debug, Parser)]
#[command(name = "strata", version, about, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done, 1 internal error, 2 usage, 3 done but something could not be read, 4 refused, \
5 source cannot be read, 6 destination failed, 7 image damaged, 8 wrong password or key, 9 locked, 10 not found, 11 differs, \
130 interrupted, 143 terminated. docs/exit-codes.md has the full table.

Examples:
  strata disks
  strata backup /dev/sda --store /mnt/usb
  strata list --store /mnt/usb
  strata prune --keep-daily 7 --keep-weekly 4 --dry-run --store /mnt/usb
  strata verify latest --deep --store /mnt/usb
  strata restore latest /dev/sdb --store /mnt/usb
  strata backup /dev/sda --store - | ssh nas 'cat > sda.strata'
  ssh nas cat sda.strata | strata restore - /dev/sdb")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) keys: KeySourceArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What opens encrypted images.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub(crate) struct KeySourceArgs {
    /// A file with a private key that opens encrypted images: an age identity or an SSH key. More than one may
    /// be named. A password is taken from STRATA_PASSWORD, the file STRATA_PASSWORD_FILE, the command
    /// STRATA_PASSWORD_COMMAND, or asked for.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    /// Read the password from this open file descriptor.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) password_fd: Option<i32>,
    /// Open only images of the key set with this id, which `strata key list` shows: whatever else somebody has
    /// put into the store is refused. More than one may be named.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) key_set: Vec<String>,
}

/// How images of a new set are encrypted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Encryption")]
pub(crate) struct EncryptArgs {
    /// Encrypt a set that is new in the store with a password [default: backup: where one is named; copy: as
    /// the images are]. A set that is there keeps its keys.
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Encrypt it for the holder of this public key: age1…, ssh-ed25519 …, ssh-rsa …, or a file with such
    /// lines. More than one may be named.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) recipient: Vec<String>,
    /// Encrypt it for a new private key too, which is written into this new file, for a safe.
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_key: Option<PathBuf>,
    /// Do not encrypt: although a password is named or the store has images that cannot be opened (backup),
    /// although the images are encrypted (copy).
    #[arg(long, conflicts_with_all = ["encrypt", "recipient", "recovery_key"])]
    pub(crate) no_encrypt: bool,
}

/// Keys to be made or named.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewKeyArgs {
    /// A password, asked for twice, or taken from where the environment says (STRATA_NEW_PASSWORD_FILE …).
    #[arg(long)]
    pub(crate) password: bool,
    /// The holder of this public key: age1…, ssh-ed25519 …, ssh-rsa …, or a file with such lines. More than
    /// one may be named.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) recipient: Vec<String>,
    /// A new private key, written into this new file, for a safe.
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_key: Option<PathBuf>,
}

/// How results and progress are shown.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Print the result as one JSON object on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing but errors, warnings and what was asked for.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more: whole ids, and every range instead of the first ones.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Show no progress, even on a terminal.
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// What a run may take of the machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub(crate) struct LimitArgs {
    /// Read at most so many bytes a second, of disks and stores together: 50M.
    #[arg(long, value_name = "SIZE")]
    pub(crate) limit_read: Option<String>,
    /// Write at most so many bytes a second, to disks and stores together.
    #[arg(long, value_name = "SIZE")]
    pub(crate) limit_write: Option<String>,
    /// Let other programs come first, on the processor and on the disk.
    #[arg(long)]
    pub(crate) nice: bool,
    /// Worker threads [default: one for each core].
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Memory for buffers, 16M or more [default: 256M].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
}

/// Where images are.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArg {
    /// Folder that holds the images. A backup into - writes a full image to standard output.
    #[arg(long, value_name = "FOLDER", env = "STRATA_STORE")]
    pub(crate) store: Option<PathBuf>,
}

impl Verb {
    /// Whether standard output is for an image or a disk, so that all that is said must go elsewhere.
    pub(crate) fn writes_data(&self) -> bool {
        match self {
            Verb::Backup(args) => {
                let into_pipe = args.store.store.as_deref() == Some(Path::new("-"));
                into_pipe && !args.dry_run
            }
            Verb::Copy(args) => args.to.as_deref() == Some(Path::new("-")) && !args.dry_run,
            Verb::Export(args) => args.file == "-",
            _ => false,
        }
    }

    /// What it may take of the machine, where it moves much.
    pub(crate) fn limits(&self) -> Option<&LimitArgs> {
        match self {
            Verb::Backup(args) => Some(&args.limits),
            Verb::Verify(args) => Some(&args.limits),
            Verb::Restore(args) => Some(&args.limits),
            Verb::Prune(args) => Some(&args.limits),
            Verb::Merge(args) => Some(&args.limits),
            Verb::Copy(args) => Some(&args.limits),
            Verb::Export(args) => Some(&args.limits),
            _ => None,
        }
    }

    /// Whether it reads images, so that a person may be asked for a part that is not there.
    pub(crate) fn may_ask(&self) -> bool {
        match self {
            Verb::Restore(args) => !args.yes,
            Verb::Show(_) | Verb::Map(_) | Verb::Verify(_) | Verb::Diff(_) | Verb::Export(_) => {
                true
            }
            _ => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show disks and partitions: size, serial number, use, and what a backup would take.
    Disks(DisksArgs),
    /// Write an image of a disk, a partition or a file that holds one into a store.
    ///
    /// One that was interrupted goes on when it is started again: what was stored and is still what the disk
    /// holds is not stored again.
    Backup(BackupArgs),
    /// List the images of a store.
    List(StoreArg),
    /// Show all that an image says about itself.
    Show(ShowArgs),
    /// Draw what lies where on an imaged disk: data, changes, zeros, what is unused or was unreadable.
    Map(MapArgs),
    /// Check that images are whole; compare one with a disk.
    Verify(VerifyArgs),
    /// Write an image, or one partition of it, onto a disk or into a file.
    Restore(RestoreArgs),
    /// Show which blocks and partitions differ between two images.
    Diff(DiffArgs),
    /// Remove old images by rules; what others need of them is merged into those first.
    Prune(PruneArgs),
    /// Merge images of one history into one.
    Merge(MergeArgs),
    /// Write images into another store, or anew into their own: compressed, cut or linked differently.
    Copy(CopyArgs),
    /// Keep an image from being pruned or merged away.
    Protect(ProtectArgs),
    /// Show or change who may open the encrypted images of a set.
    Key(KeyArgs),
    /// Write an image as a raw disk into a new file or to standard output.
    Export(ExportArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a folder.
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DisksArgs {
    /// Folder below which sys, proc and dev are looked for.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Do not open the disks to look into their file systems: fast, and without what is in use.
    #[arg(long)]
    pub(crate) no_contents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The disk: a path, a name below /dev/disk/by-id, a serial number, or a file that holds a disk.
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Name of the history that the image belongs to [default: the one of the same disk, or a new one
    /// named after its model and serial number, or after the file].
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Make a full image [default: incremental where the set has a valid image to build on, else full].
    #[arg(long, group = "kind")]
    pub(crate) full: bool,
    /// Store what differs from the newest image of the set.
    #[arg(long, group = "kind")]
    pub(crate) incremental: bool,
    /// Store what differs from the last full image.
    #[arg(long, group = "kind")]
    pub(crate) differential: bool,
    /// Take only these partitions; the partition table and what lies between partitions always come
    /// along [default: all].
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) partition: Vec<u32>,
    /// Take free space too, without looking into file systems.
    #[arg(long)]
    pub(crate) all_blocks: bool,
    /// Leave out content that a restored system does not need; it reads as zeros. swap: pages of
    /// swap areas, swapfile.sys; pagefile: pagefile.sys; hibernation: hiberfil.sys, hibernation
    /// images in swap areas.
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',')]
    pub(crate) exclude: Vec<String>,
    /// Fail, before anything is written, when a partition would have to be taken whole because what
    /// is in use of it cannot be told.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Unit of block states, a power of two from 4K to 1M [default: that of the set, 64K for a new one].
    #[arg(long, value_name = "SIZE")]
    pub(crate) block_size: Option<String>,
    /// How data is stored: none, zstd:LEVEL with a level from -7 (fastest) to 19, or auto: at level 3 while the
    /// processor is what is waited for, and smaller while the store is.
    #[arg(long, value_name = "HOW", default_value = "zstd:3")]
    pub(crate) compression: String,
    /// Cut the image into numbered files of SIZE at most, 1M or more; auto: where the store's file system
    /// takes no long ones (FAT: 4 GiB); none: not [default: as the newest image of the set]. Whoever reads the
    /// image at a terminal is asked for files that lie on other media.
    #[arg(long, value_name = "SIZE|auto|none")]
    pub(crate) split: Option<String>,
    #[command(flatten)]
    pub(crate) encrypt: EncryptArgs,
    /// Read bad sectors up to N times more, once all good areas are safe in the image. What that yields makes
    /// an image that builds on it.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RETRIES)]
    pub(crate) retries: u32,
    /// Keep a map of what could not be read in FILE, in the format of GNU ddrescue. If there is one of the
    /// newest image already, only what is missing there is read. What another program's map calls bad is
    /// read last, and that map is kept as FILE.bak.
    #[arg(long, value_name = "FILE")]
    pub(crate) rescue_map: Option<PathBuf>,
    /// Look for damage in the images that this one builds on, and store again what they have lost [default: when
    /// `verify` found some].
    #[arg(long)]
    pub(crate) heal: bool,
    /// Decode everything again before it is written, instead of one frame in 64: for a machine whose memory or
    /// processor is in doubt.
    #[arg(long)]
    pub(crate) paranoid: bool,
    /// Words to keep in the image.
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The image: an id or its start, latest, SET@latest, SET@-2 (two before the newest), a time, SET@TIME, the
    /// path of a file, or - for one that comes through standard input.
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// List its changed-block map too: what it recorded itself, and not an older image.
    #[arg(long)]
    pub(crate) changed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// The image: an id or its start, latest, SET@latest, or the path of a file.
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Draw into this new file as an SVG picture instead of onto the terminal.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Images to check, each with all that it builds on, or - for one that comes through standard input
    /// [default: all of the store].
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Decode everything and compare every block with its digest, instead of checksums alone.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Look at this share of the stored frames only, another one each time: a percentage.
    #[arg(long, value_name = "PERCENT", conflicts_with = "against")]
    pub(crate) sample: Option<String>,
    /// Leave out images that were found whole, as closely as now, within this time: 30d, 12h, 1y6m.
    #[arg(long, value_name = "AGE", conflicts_with = "against")]
    pub(crate) older_than: Option<String>,
    /// Also compare the image (the latest, unless one is named) with this disk.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) against: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The image: an id or its start, latest, SET@latest, SET@-2 (two before the newest), a time, SET@TIME, the
    /// path of a file, or - for one that comes through standard input.
    pub(crate) image: String,
    /// What to overwrite: a path, a name below /dev/disk/by-id, a serial number, or a file, which is
    /// created when it does not exist.
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Restore only partition N of the image: onto TARGET itself, or into its partition M.
    #[arg(long, value_name = "N[:M]")]
    pub(crate) partition: Option<String>,
    /// Write only blocks that differ from what the target holds; it is read to find out.
    #[arg(long)]
    pub(crate) only_changed: bool,
    /// The target holds the disk of this image, unchanged: write only blocks that differ between the
    /// two. A sample is read to see whether that is so; if it is not, everything is compared.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) holds: Option<String>,
    /// Restore what is left of a damaged image, also of one that was cut off. Where something is lost, a pattern stands afterwards, and the
    /// report lists it; the exit code is 3 then.
    #[arg(long, conflicts_with_all = ["only_changed", "holds"])]
    pub(crate) salvage: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Overwrite without asking, and ask for no parts of the image that lie elsewhere.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do not read back and compare what was written.
    #[arg(long)]
    pub(crate) no_read_back: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first image.
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// The second image.
    #[arg(value_name = "B")]
    pub(crate) new: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// End with exit code 11 when they differ.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each rule keeps the newest image of each of the N most recent hours, days, weeks (from Monday), months \
or years that have one; N may be \"all\". An image stays when any rule keeps it, when it is protected, \
or when it is the newest of its set. An image that others build on is merged into the next one; while \
several build on it, it stays.")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Only this set [default: each set by itself].
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Keep the newest N images.
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<String>,
    /// Keep the newest image of each of N hours.
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<String>,
    /// Keep the newest image of each of N days.
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<String>,
    /// Keep the newest image of each of N weeks.
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<String>,
    /// Keep the newest image of each of N months.
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<String>,
    /// Keep the newest image of each of N years.
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<String>,
    /// Keep every image not older than this before the newest: 30d, 12h, 1y6m.
    #[arg(long, value_name = "AGE")]
    pub(crate) keep_within: Option<String>,
    /// Then remove the oldest images until the store has this much free: 100G.
    #[arg(long, value_name = "SIZE")]
    pub(crate) free_space: Option<String>,
    /// With --free-space: leave at least this many images of each set.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) keep_least: usize,
    /// Believe the times of all images, also such as cannot be right: they are still to come, before that
    /// of an older image, or years behind it.
    #[arg(long)]
    pub(crate) trust_times: bool,
    /// Print what would go and what would stay and why, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// A..B: all images from A to B become one, which stands for B. ..B: B becomes a full image.
    #[arg(value_name = "A..B")]
    pub(crate) range: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Print what would be merged, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
    /// Folder that holds the images.
    #[arg(long, global = true, value_name = "FOLDER", env = "STRATA_STORE")]
    pub(crate) store: Option<PathBuf>,
    /// Which set [default: the only one that is encrypted].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) set: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Show the keys of a set.
    List,
    /// Check that the given key opens every image of a set.
    Check,
    /// Add a key. Only the heads of the images are written.
    Add {
        #[command(flatten)]
        keys: NewKeyArgs,
        /// What to call it [default: password, age-1, ssh-1, recovery].
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a key. Whoever had it and a copy of the images can still read that copy.
    Remove {
        /// What it is called.
        name: String,
    },
    /// Make the secret anew by which the images of a set know each other, so that a machine that knew it
    /// cannot add any more.
    Rotate,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A copy is the same image: id, set, number, content and digest stay. In another store it builds on its \
parent where that is there, and is full where not; copy a history oldest first, or all of it with --set \
or --all. Without --to, the new file takes the place of the old one. Either way it is read again and \
every block compared with its digest before an old file goes.")]
pub(crate) struct CopyArgs {
    /// The images: ids or their starts, latest, SET@latest, SET@-2, times, or paths of files.
    #[arg(value_name = "IMAGE", required_unless_present_any = ["set", "all"])]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// All images of this set.
    #[arg(long, value_name = "NAME", conflicts_with = "images")]
    pub(crate) set: Option<String>,
    /// All images of the store.
    #[arg(long, conflicts_with_all = ["images", "set"])]
    pub(crate) all: bool,
    /// Folder that the copies go into, made if need be; - writes one full image to standard output
    /// [default: the same store, in place of the old files].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// Store data in another way: none, auto, or zstd:LEVEL with a level from -7 (fastest) to 19
    /// [default: as it is].
    #[arg(long, value_name = "HOW")]
    pub(crate) recompress: Option<String>,
    /// Cut the copies into numbered files of SIZE at most, 1M or more; auto: where the store's file system
    /// takes no long ones (FAT: 4 GiB); none: not [default: as the old file in the same store, else auto].
    #[arg(long, value_name = "SIZE|auto|none")]
    pub(crate) split: Option<String>,
    #[command(flatten)]
    pub(crate) encrypt: EncryptArgs,
    /// Make full images, which build on no other.
    #[arg(long)]
    pub(crate) full: bool,
    /// With --to: remove the old files when the copies are verified, but for images that are protected or
    /// that others build on.
    #[arg(long)]
    pub(crate) remove_old: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The image.
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Take it back.
    #[arg(long)]
    pub(crate) off: bool,
    /// Words to keep with it.
    #[arg(long, value_name = "TEXT", conflicts_with = "off")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The image: an id or its start, latest, SET@latest, SET@-2 (two before the newest), a time, SET@TIME, or the
    /// path of a file.
    pub(crate) image: String,
    /// A new file, or - for standard output.
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    /// Only this partition.
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for one page a verb [default: the main page to standard output].
    pub(crate) dir: Option<PathBuf>,
}
